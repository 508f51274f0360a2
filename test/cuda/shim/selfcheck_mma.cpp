// The host's mma against plain matrix products, with fragments filled by the layouts of the PTX
// manual (element by element, not by the words of mma.cuh), and squeeze/code_sum against loops.
#include <cstdio>
#include <string>
#include <vector>

#include "mma.cuh"

namespace {

using spr2q::cuda::code_sum;
using spr2q::cuda::code_word;

unsigned seed = 1;
unsigned draw() { return seed = seed * 1664525u + 1013904223u, seed >> 8; }

// PTX: element i of lane's A fragment (16 x K): row g or g + 8, K index t * per + i % per (+ K/2),
// per = codes of a 32-bit register.
template <int kWidth>
bool product_is_right(bool half) {
  constexpr int per = 32 / kWidth;
  const int K = half ? 4 * per : 8 * per;
  std::vector<int> a(static_cast<size_t>(16 * K)), b(static_cast<size_t>(K * 8));
  for (int& x : a) x = static_cast<int>(draw() & ((1u << kWidth) - 1));
  for (int& x : b) x = static_cast<int>(draw() & ((1u << kWidth) - 1));
  std::vector<int> got(16 * 8, -1);
  const char* problem = shim::run(dim3(1), dim3(32), 0, [&] {
    const int g = shim::lane() / 4, t = shim::lane() % 4;
    unsigned fa[4] = {}, fb[2] = {};
    for (int r = 0; r < (half ? 2 : 4); ++r) {
      for (int i = 0; i < per; ++i) {
        const int row = r % 2 ? g + 8 : g, k = t * per + i + (r < 2 ? 0 : K / 2);
        fa[r] |= static_cast<unsigned>(a[static_cast<size_t>(row * K + k)]) << (i * kWidth);
      }
    }
    for (int r = 0; r < (half ? 1 : 2); ++r) {
      for (int i = 0; i < per; ++i) {
        const int k = t * per + i + r * K / 2;
        fb[r] |= static_cast<unsigned>(b[static_cast<size_t>(k * 8 + g)]) << (i * kWidth);
      }
    }
    int d[4] = {100, 200, 300, 400};
    if (half) {
      const unsigned low[2] = {fa[0], fa[1]};
      spr2q::cuda::mma_half(d, low, fb[0]);
    } else {
      spr2q::cuda::mma<kWidth>(d, fa, fb);
    }
    for (int i = 0; i < 4; ++i) {
      const int row = i < 2 ? g : g + 8, column = 2 * t + i % 2;
      got[static_cast<size_t>(row * 8 + column)] = d[i] - 100 * (i + 1);
    }
  });
  bool good = !problem;
  for (int row = 0; row < 16; ++row) {
    for (int column = 0; column < 8; ++column) {
      int sum = 0;
      for (int k = 0; k < K; ++k) {
        sum += a[static_cast<size_t>(row * K + k)] * b[static_cast<size_t>(k * 8 + column)];
      }
      good = good && got[static_cast<size_t>(row * 8 + column)] == sum;
    }
  }
  return good;
}

template <int kWidth>
bool words_are_right() {
  constexpr int per = 32 / kWidth;
  bool good = true;
  for (int count = 1; count < 70; ++count) {
    alignas(4) uint8_t codes[72] = {};  // zeros past the row, as packed weights have
    for (int i = 0; i < count; ++i) codes[i] = draw() & ((1u << kWidth) - 1);
    for (int word = 0; word * per < count; ++word) {
      unsigned expected = 0;
      int sum = 0;
      for (int i = 0; i < per && word * per + i < count; ++i) {
        expected |= static_cast<unsigned>(codes[word * per + i]) << (i * kWidth);
        sum += codes[word * per + i];
      }
      good = good && code_word<kWidth>(codes, word, count, true) == expected &&
             code_word<kWidth>(codes, word, count, false) == expected &&
             code_sum<kWidth>(expected) == sum;
    }
  }
  return good;
}

}  // namespace

void expect(bool good, const std::string& what);

void check_mma() {
  expect(product_is_right<8>(false), "mma m16n8k32 on 8-bit codes is the matrix product");
  expect(product_is_right<8>(true), "mma m16n8k16 on 8-bit codes is the matrix product");
  expect(product_is_right<4>(false), "mma m16n8k64 on 4-bit codes is the matrix product");
  expect(product_is_right<1>(false), "mma m16n8k256 on bits counts the ANDs");
  expect(words_are_right<8>() && words_are_right<4>() && words_are_right<1>(),
         "codes are packed into words, and added up, at every width and length");
}
