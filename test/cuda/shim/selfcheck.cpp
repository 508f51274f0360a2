// The shim examined by kernels with known faults: each must be found, and their mended versions
// must pass. Prints one line a check; exit code 1 where one fails.
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "tickets.cuh"

static int failures = 0;

void expect(bool good, const std::string& what) {
  std::printf("%s %s\n", good ? "ok  " : "FAIL", what.c_str());
  failures += !good;
}

void check_mma();     // selfcheck_mma.cpp
void check_layers();  // selfcheck_layers.cpp

namespace {

bool mentions(const char* problem, const char* part) {
  return problem && std::string(problem).find(part) != std::string::npos;
}

// Reverses 256 values through shared memory, with or without the barrier that this needs.
bool reverses(bool with_barrier) {
  std::vector<int> out(256, -1);
  const char* problem = shim::run(dim3(1), dim3(256), 256 * sizeof(int), [&] {
    int* shared = static_cast<int*>(shim::dynamic_shared());
    shared[threadIdx.x] = static_cast<int>(threadIdx.x);
    if (with_barrier) __syncthreads();
    out[threadIdx.x] = shared[255 - threadIdx.x];
  });
  for (int i = 0; i < 256; ++i) {
    if (out[static_cast<size_t>(i)] != 255 - i) return false;
  }
  return !problem;
}

// Blocks that each wait for the flag `ahead` tickets on: the problem, or null; `left`: what lies in the
// counters and flags afterwards.
const char* wait_in_turn(int ahead, unsigned& left) {
  constexpr int kBlocks = 5;
  unsigned all[kBlocks + 2] = {};
  const spr2q::cuda::Tickets tickets{all, all + 1, all + 2, kBlocks + 2};
  const char* problem = shim::run(dim3(kBlocks), dim3(64), 0, [&] {
    const int wanted = static_cast<int>(spr2q::cuda::take_ticket(tickets)) + ahead;
    const bool waits = wanted >= 0 && wanted < kBlocks;
    if (threadIdx.x == 0 && waits) spr2q::cuda::wait_for(tickets.flags + wanted);
    __syncthreads();
    spr2q::cuda::raise(tickets.flags + wanted - ahead);
    spr2q::cuda::put_back(tickets);
  });
  left = 0;
  for (unsigned value : all) left += value;
  return problem;
}

void check_tickets() {
  unsigned left = 1;
  expect(!wait_in_turn(-1, left) && left == 0, "blocks wait for lower tickets, and leave zeros");
  expect(mentions(wait_in_turn(1, left), "waits for"), "a block that waits for a higher one is reported");
}

void check_barriers() {
  bool always = true;
  for (int i = 0; i < 20; ++i) always = always && reverses(true);
  expect(always, "a kernel with its barrier is right in 20 thread orders");
  int wrong = 0;
  for (int i = 0; i < 20; ++i) wrong += !reverses(false);
  expect(wrong == 20, "the same kernel without its barrier is wrong in every one");
  const char* problem = shim::run(dim3(1), dim3(64), 0, [] {
    if (threadIdx.x < 32) __syncthreads();
  });
  expect(mentions(problem, "barrier mismatch"), "threads that leave before a barrier are reported");
  problem = shim::run(dim3(1), dim3(64), 0, [] {
    if (threadIdx.x != 5) __syncwarp();
  });
  expect(mentions(problem, "never reach"), "a lane that misses a shuffle is reported");
  problem = shim::run(dim3(1), dim3(32), 0, [] {
    if (threadIdx.x < 16) __shfl_xor_sync(0xffffffffu, 1, 1);
    else __syncwarp();
  });
  expect(mentions(problem, "meet in"), "lanes that meet in different shuffles are reported");
  problem = shim::run(dim3(1), dim3(32), 0, [] { __syncwarp(0xffffu); });
  expect(mentions(problem, "part of the warp"), "a shuffle that names half a warp is refused");
  problem = shim::run(dim3(1), dim3(48), 0, [] {});
  expect(mentions(problem, "32, 64"), "a block that is no whole number of warps is refused");
  expect(!shim::run(dim3(2, 3, 4), dim3(8, 4, 2), 0, [] { __syncthreads(); }),
         "after all that, a good kernel runs");
}

// Every block leaves its number in shared memory, tells the others, waits for all of them, and looks.
void check_blocks_at_once() {
  constexpr unsigned kBlocks = 4;
  setenv("SPR2Q_SHIM_BLOCKS", "4", 1);
  unsigned arrived = 0;
  std::vector<unsigned> seen(kBlocks, kBlocks);
  const char* problem = shim::run(dim3(kBlocks), dim3(64), 0, [&] {
    __shared__ unsigned own;
    if (threadIdx.x == 0) {
      own = blockIdx.x;
      atomicInc(&arrived, ~0u);
      while (__atomic_load_n(&arrived, __ATOMIC_ACQUIRE) < kBlocks) {
      }
    }
    __syncthreads();
    if (threadIdx.x == 63) seen[blockIdx.x] = own;
  });
  setenv("SPR2Q_SHIM_BLOCKS", "1", 1);
  bool good = !problem;
  for (unsigned i = 0; i < kBlocks; ++i) good = good && seen[i] == i;
  expect(good, "four blocks that wait for each other end, each with shared memory of its own");
  expect(mentions(shim::run(dim3(1u << 31), dim3(32), 0, [] {}), "too large"),
         "a grid of 2^31 blocks is refused");
}

void check_shuffles() {
  std::vector<int> up(64), down(64), across(64), first(64);
  std::vector<unsigned> ballot(64), match(64);
  const char* problem = shim::run(dim3(1), dim3(64), 0, [&] {
    const int i = static_cast<int>(threadIdx.x);
    const size_t at = static_cast<size_t>(i);
    up[at] = __shfl_up_sync(0xffffffffu, i, 3);
    down[at] = __shfl_down_sync(0xffffffffu, i, 3);
    across[at] = __shfl_xor_sync(0xffffffffu, i, 5);
    first[at] = __shfl_sync(0xffffffffu, i, 0);
    ballot[at] = __ballot_sync(0xffffffffu, i % 3 == 0);
    match[at] = __match_any_sync(0xffffffffu, i % 4);
  });
  bool good = !problem;
  for (int i = 0; i < 64; ++i) {
    const int lane = i % 32, base = i - lane;
    const size_t at = static_cast<size_t>(i);
    unsigned thirds = 0, alike = 0;
    for (int k = 0; k < 32; ++k) {
      thirds |= static_cast<unsigned>((base + k) % 3 == 0) << k;
      alike |= static_cast<unsigned>(k % 4 == lane % 4) << k;
    }
    good = good && up[at] == (lane < 3 ? i : i - 3) && down[at] == (lane > 28 ? i : i + 3) &&
           across[at] == base + (lane ^ 5) && first[at] == base && ballot[at] == thirds &&
           match[at] == alike;
  }
  expect(good, "shuffles, ballot and match move what CUDA says they move");
}

// Loads four floats from an address that is no multiple of 16 bytes: the process must not survive.
void load_misaligned() {
  alignas(16) float values[8] = {};
  float* volatile from = values + 1;
  float4 four = {};
  shim::run(dim3(1), dim3(32), 0, [&] { four = *reinterpret_cast<const float4*>(from); });
  std::printf("%g read from between two pieces\n", static_cast<double>(four.x));
}

}  // namespace

int main(int count, char** arguments) {
  if (count > 1 && std::string(arguments[1]) == "misaligned") {
    load_misaligned();
    return 0;
  }
  check_barriers();
  check_tickets();
  check_blocks_at_once();
  check_shuffles();
  check_mma();
  check_layers();
  std::printf("%d failures\n", failures);
  return failures ? 1 : 0;
}
