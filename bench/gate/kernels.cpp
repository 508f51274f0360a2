// Runs one of the six hottest kernels once, at a small fixed shape, on the AVX2 table and one
// thread, so that callgrind can count its instructions. Operands follow a fixed rule; nothing is
// random and nothing is timed. Usage: kernels NAME (without a name: lists them, one a line).
//
// Instructions are counted inside measured() only (callgrind --toggle-collect=measured*): filling
// operands and starting the process stay out.
#include <cstdio>
#include <cstring>
#include <vector>

#include "../../native/core/backend.hpp"
#include "../../native/core/pool.hpp"

using namespace spr2q;

namespace {

// Values between -1 and 1 that no vector width divides evenly.
std::vector<float> values(int64_t count, float scale = 1.0f) {
  std::vector<float> out(count);
  for (int64_t i = 0; i < count; ++i) out[i] = scale * (static_cast<float>(i * 37 % 101) / 50 - 1);
  return out;
}

std::vector<uint8_t> codes(int64_t count, int levels) {
  std::vector<uint8_t> out(count);
  for (int64_t i = 0; i < count; ++i) out[i] = static_cast<uint8_t>(i * 29 % 83 % levels);
  return out;
}

F32 view(std::vector<float>& v) { return {v.data(), static_cast<int64_t>(v.size())}; }
U8 view(std::vector<uint8_t>& v) { return {v.data(), static_cast<int64_t>(v.size())}; }

template <class Args>
__attribute__((noinline)) void measured(void (*op)(const Args&), const Args& args) {
  op(args);
}

void run_linear(const Backend& backend) {
  const int64_t rows = 1024, in = 48, out = 48;
  auto x = values(rows * in), weight = values(out * in), bias = values(out), y = values(rows * out);
  measured(backend.linear, Linear{view(x), view(weight), view(bias), view(y), rows, in, out});
}

// 4-bit codes as recipe `best` has them: an offset per input, a range per output.
void run_coded_linear(const Backend& backend) {
  const int64_t rows = 1024, in = 48, out = 48, bits = 4;
  auto x = codes(rows * in, 16), weight = codes(out * in * bits / 8, 256);
  auto lower = values(in), low = std::vector<float>(out, -0.5f), high = std::vector<float>(out, 0.5f);
  std::vector<float> range{2.0f};
  auto bias = values(out), y = values(rows * out);
  measured(backend.coded_linear,
           CodedLinear{view(x), view(weight), view(lower), view(range), view(low), view(high),
                       view(bias), view(y), rows, in, out, bits, bits, kColumn, kRow, bits});
}

void run_conv2d(const Backend& backend) {
  const int64_t side = 24, in = 48, out = 48, kernel = 3;
  auto x = values(side * side * in), weight = values(out * in * kernel * kernel, 0.1f);
  auto bias = values(out), y = values(side * side * out);
  measured(backend.conv2d, Conv2d{view(x), view(weight), view(bias), view(y), 1, side, side, in, out,
                                  kernel});
}

// One window of MambaIRv2-light: 256 tokens, 4 heads of 12.
void run_window_attention(const Backend& backend) {
  const int64_t side = 16, heads = 4, dim = 12;
  const int64_t size = side * side * heads * dim;
  auto q = values(size), k = values(size), v = values(size), y = values(size);
  auto table = values((2 * side - 1) * (2 * side - 1) * heads);
  measured(backend.window_attention,
           WindowAttention{view(q), view(k), view(v), view(table), {nullptr, 0}, view(y),
                           {nullptr, 0}, 1, side, side, heads, dim, side, 0, kFloat, 8});
}

void run_coded_window_attention(const Backend& backend) {
  const int64_t side = 16, heads = 4, dim = 12, bits = 4;
  const int64_t size = side * side * heads * dim;
  auto q = codes(size, 16), k = codes(size, 16), v = codes(size, 16);
  std::vector<float> grid{-1, 1, -1, 1, -1, 1};
  auto table = values((2 * side - 1) * (2 * side - 1) * heads), y = values(size);
  measured(backend.coded_window_attention,
           CodedWindowAttention{view(q), view(k), view(v), view(grid), view(table), {nullptr, 0},
                                view(y), {nullptr, 0}, {nullptr, 0}, {nullptr, 0}, 1, side, side,
                                heads, dim, side, 0, kHalfExponent, bits, bits, bits, kTensor});
}

void run_selective_scan(const Backend& backend) {
  const int64_t length = 512, channels = 48, states = 8;
  auto u = values(length * channels), delta = values(length * channels);
  auto A = std::vector<float>(channels * states, -1.0f), B = values(length * states);
  auto C = values(length * states), D = values(channels), bias = values(channels, 0.1f);
  auto y = values(length * channels);
  measured(backend.selective_scan,
           SelectiveScan{view(u), view(delta), view(A), view(B), view(C), view(D), view(bias),
                         {nullptr, 0}, view(y), {nullptr, 0}, 1, length, channels, states, 8});
}

struct Entry {
  const char* name;
  void (*run)(const Backend&);
};
constexpr Entry kKernels[] = {
    {"linear", run_linear},
    {"coded_linear", run_coded_linear},
    {"conv2d", run_conv2d},
    {"window_attention", run_window_attention},
    {"coded_window_attention", run_coded_window_attention},
    {"selective_scan", run_selective_scan},
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    for (const Entry& entry : kKernels) std::puts(entry.name);
    return 0;
  }
  const Backend* backend = find_backend("avx2");
  if (!backend) return 3;  // this machine (or this valgrind) has no AVX2
  set_thread_count(1);
  for (const Entry& entry : kKernels) {
    if (std::strcmp(entry.name, argv[1])) continue;
    entry.run(*backend);
    return 0;
  }
  return 2;
}
