// The fibres behind shim.hpp. One launch at a time; a thread of the host has the variables below for
// the block that it runs.
#include "shim.hpp"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

__thread dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace shim {
namespace {

constexpr size_t kStackBytes = 96 << 10;
constexpr unsigned kMostThreads = 1024;         // of a block
constexpr unsigned kMostGrid = 0x7fffffff;      // blocks in x
constexpr int64_t kMostShared = 99 << 10;       // what sm_86 and sm_89 give to one block
constexpr unsigned kWarp = 32;

enum class State { kReady, kAtBarrier, kAtExchange, kDone };

#if defined(__x86_64__)
// Saves the callee-saved registers on the stack it leaves, takes them from the one it enters.
extern "C" void shim_switch(void** from, void* to);
asm(R"(
.text
.globl shim_switch
.type shim_switch, @function
shim_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size shim_switch, .-shim_switch
)");
#endif

struct Fibre {
  dim3 thread;
  unsigned number = 0;
  State state = State::kDone;
  std::unique_ptr<char[]> stack;
#if defined(__x86_64__)
  void* pointer = nullptr;
#else
  ucontext_t context;
#endif
};

// The meeting of a warp's lanes. Two sets of slots: a lane may enter the next exchange while
// others still read this one, but not the one after.
struct Warp {
  unsigned arrived = 0, turn = 0;
  const char* kind = nullptr;
  alignas(64) unsigned char slots[2][kWarp * kSlotBytes];
};

thread_local std::vector<Fibre> fibres;
thread_local std::vector<Warp> warps;
thread_local std::vector<unsigned char> shared_memory;
thread_local const std::function<void()>* body = nullptr;
thread_local Fibre* running = nullptr;
thread_local std::string problem;
thread_local uint64_t random_state = 0;
thread_local bool among_others = false;  // other blocks run at the same time
#if defined(__x86_64__)
thread_local void* scheduler = nullptr;
#else
thread_local ucontext_t scheduler;
#endif

uint64_t draw() {  // splitmix64
  uint64_t z = random_state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

// Visits 0 ... n-1 in a drawn order: an arithmetic sequence modulo n by a step that has no common
// divisor with it.
struct Order {
  uint64_t n, at, step;
  explicit Order(uint64_t count) : n(count), at(draw() % count), step(1) {
    for (step = n > 2 ? 1 + draw() % (n - 1) : 1; common_divisor(step, n) != 1;) ++step;
  }
  static uint64_t common_divisor(uint64_t a, uint64_t b) {
    while (b) {
      const uint64_t rest = a % b;
      a = b;
      b = rest;
    }
    return a;
  }
  uint64_t next() {
    const uint64_t here = at;
    at = (at + step) % n;
    return here;
  }
};

void leave() {
#if defined(__x86_64__)
  shim_switch(&running->pointer, scheduler);
#else
  swapcontext(&running->context, &scheduler);
#endif
}

void fibre_main() {
  (*body)();
  running->state = State::kDone;
  leave();
  std::abort();  // a finished fibre is never resumed
}

void prepare(Fibre& fibre) {
  fibre.state = State::kReady;
  if (!fibre.stack) fibre.stack.reset(new char[kStackBytes]);
#if defined(__x86_64__)
  // As if shim_switch had been called from fibre_main's first instruction: six registers, then the
  // address to return to; the stack is off by 8 from a 16-byte boundary, as after a call.
  uintptr_t top = reinterpret_cast<uintptr_t>(fibre.stack.get() + kStackBytes);
  top = top / 16 * 16 - 8;
  void** frame = reinterpret_cast<void**>(top) - 7;
  for (int i = 0; i < 6; ++i) frame[i] = nullptr;
  frame[6] = reinterpret_cast<void*>(fibre_main);
  fibre.pointer = frame;
#else
  getcontext(&fibre.context);
  fibre.context.uc_stack.ss_sp = fibre.stack.get();
  fibre.context.uc_stack.ss_size = kStackBytes;
  fibre.context.uc_link = nullptr;
  makecontext(&fibre.context, fibre_main, 0);
#endif
}

void resume(Fibre& fibre) {
  running = &fibre;
  threadIdx = fibre.thread;
#if defined(__x86_64__)
  shim_switch(&scheduler, fibre.pointer);
#else
  swapcontext(&scheduler, &fibre.context);
#endif
}

// A block among others falls behind them here and there, between any two of its threads.
void dawdle() {
  if (draw() % 128 == 0) std::this_thread::sleep_for(std::chrono::microseconds(draw() % 200));
}

// Resumes the fibres first ... first + count - 1 that can run, once each; true where one could.
bool pass(unsigned first, unsigned count) {
  bool progress = false;
  Order order(count);
  for (unsigned i = 0; i < count && problem.empty(); ++i) {
    Fibre& fibre = fibres[first + order.next()];
    if (fibre.state != State::kReady) continue;
    if (among_others) dawdle();
    resume(fibre);
    progress = true;
  }
  return progress;
}

// As far as threads get without a barrier of the block. Half of the time all warps advance
// together, from shuffle to shuffle; else one warp after the other runs as far as it can: what a
// fast warp overwrites before a slow one has read it then shows.
bool advance(unsigned threads) {
  if (draw() % 2) return pass(0, threads);
  bool progress = false;
  Order order(threads / kWarp);
  for (unsigned w = 0; w < threads / kWarp; ++w) {
    const unsigned first = static_cast<unsigned>(order.next()) * kWarp;
    while (problem.empty() && pass(first, kWarp)) progress = true;
  }
  return progress;
}

// Runs one block to its end; false with `problem` set where it cannot.
bool run_block(unsigned threads) {
  for (unsigned i = 0; i < threads; ++i) prepare(fibres[i]);
  for (unsigned w = 0; w < threads / kWarp; ++w) warps[w].arrived = 0;
  for (;;) {
    const bool progress = advance(threads);
    if (!problem.empty()) return false;
    if (progress) continue;
    unsigned done = 0, waiting = 0;
    for (unsigned i = 0; i < threads; ++i) {
      done += fibres[i].state == State::kDone;
      waiting += fibres[i].state == State::kAtBarrier;
    }
    if (done == threads) return true;
    if (waiting == threads) {
      for (unsigned i = 0; i < threads; ++i) fibres[i].state = State::kReady;
    } else if (waiting + done == threads) {
      problem = "a barrier mismatch: " + std::to_string(waiting) + " threads wait at a barrier, " +
                std::to_string(done) + " have left the block";
      return false;
    } else {
      problem = "a warp waits in a shuffle that some of its lanes never reach";
      return false;
    }
  }
}

}  // namespace

const unsigned char* exchange(unsigned mask, const void* value, size_t bytes, const char* kind) {
  Fibre& self = *running;
  const unsigned lane = self.number % kWarp;
  Warp& warp = warps[self.number / kWarp];
  const unsigned turn = warp.turn;
  if (mask != 0xffffffffu) problem = std::string(kind) + " names a part of the warp";
  if (warp.arrived == 0) warp.kind = kind;
  if (std::strcmp(warp.kind, kind) != 0) {
    problem = std::string("lanes of a warp meet in ") + warp.kind + " and " + kind;
  }
  if (!problem.empty()) {
    leave();
    std::abort();
  }
  unsigned char* slots = warp.slots[turn];
  if (bytes) std::memcpy(slots + lane * kSlotBytes, value, bytes);
  warp.arrived |= 1u << lane;
  if (warp.arrived == 0xffffffffu) {
    warp.arrived = 0;
    warp.turn ^= 1;
    Fibre* first = &fibres[self.number - lane];
    for (unsigned i = 0; i < kWarp; ++i) first[i].state = State::kReady;
  } else {
    self.state = State::kAtExchange;
    leave();
  }
  return slots;
}

void trap(const char* why) {
  problem = why;
  leave();
  std::abort();  // run() goes on with no fibre of this block
}

bool one_block() { return !among_others; }
void* dynamic_shared() { return shared_memory.data(); }

namespace {

// A launch and what its threads of the host have done of it.
struct Launch {
  dim3 grid, block;
  int64_t shared;
  const std::function<void()>* kernel;
  uint64_t seed, left;
  Order order;
  std::mutex mutex;  // of the order and of what went wrong
  std::string problem;
};

// Gives the next block; false where there is none, or another one could not go on.
bool take_block(Launch& launch) {
  const std::lock_guard<std::mutex> lock(launch.mutex);
  if (launch.left == 0 || !launch.problem.empty()) return false;
  --launch.left;
  const uint64_t at = launch.order.next();
  const dim3& grid = launch.grid;
  blockIdx = dim3(static_cast<unsigned>(at % grid.x), static_cast<unsigned>(at / grid.x % grid.y),
                  static_cast<unsigned>(at / grid.x / grid.y));
  return true;
}

// Runs blocks of the launch in this thread of the host, one after the other, until none is left.
void run_blocks(Launch& launch, unsigned worker, uint64_t at_once) {
  const dim3& block = launch.block;
  const unsigned threads = block.x * block.y * block.z;
  random_state = launch.seed + (static_cast<uint64_t>(worker) << 56);
  among_others = at_once > 1;
  problem.clear();
  if (fibres.size() < threads) fibres.resize(threads);
  if (warps.size() < threads / kWarp) warps.resize(threads / kWarp);
  shared_memory.resize(static_cast<size_t>(launch.shared) + 64);
  for (unsigned i = 0; i < threads; ++i) {
    fibres[i].number = i;
    fibres[i].thread = dim3(i % block.x, i / block.x % block.y, i / block.x / block.y);
  }
  body = launch.kernel;
  blockDim = block;
  gridDim = launch.grid;
  while (take_block(launch)) {
    std::memset(shared_memory.data(), 0xff, static_cast<size_t>(launch.shared));
    if (run_block(threads)) continue;
    if (among_others) {  // which may wait for this one
      std::fprintf(stderr, "the CUDA shim: %s\n", problem.c_str());
      std::abort();
    }
    const std::lock_guard<std::mutex> lock(launch.mutex);
    if (launch.problem.empty()) launch.problem = problem;
  }
}

// Blocks that run at a time, at most.
uint64_t blocks_at_once() {
  const char* count = std::getenv("SPR2Q_SHIM_BLOCKS");
  return count && std::atoll(count) > 1 ? static_cast<uint64_t>(std::atoll(count)) : 1;
}

}  // namespace

const char* run(dim3 grid, dim3 block, int64_t shared, const std::function<void()>& kernel) {
  static std::mutex one_launch;
  const std::lock_guard<std::mutex> lock(one_launch);
  static uint64_t launches = [] {
    const char* seed = std::getenv("SPR2Q_SHIM_SEED");
    return seed ? static_cast<uint64_t>(std::atoll(seed)) << 32 : 0;
  }();
  random_state = ++launches;
  const unsigned threads = block.x * block.y * block.z;
  if (threads == 0 || threads > kMostThreads || threads % kWarp != 0) {
    return "a block must have 32, 64, ... 1024 threads";
  }
  if (grid.x > kMostGrid || grid.y > 65535 || grid.z > 65535) return "a grid is too large";
  if (shared > kMostShared) return "more dynamic shared memory than sm_89 has";
  const uint64_t blocks = static_cast<uint64_t>(grid.x) * grid.y * grid.z;
  Launch launch = {grid, block, shared, &kernel, launches, blocks, Order(blocks), {}, {}};
  const uint64_t wanted = blocks_at_once(), at_once = wanted < blocks ? wanted : blocks;
  std::vector<std::thread> others;
  for (unsigned worker = 1; worker < at_once; ++worker) {
    others.emplace_back([&launch, worker, at_once] { run_blocks(launch, worker, at_once); });
  }
  run_blocks(launch, 0, at_once);
  for (std::thread& other : others) other.join();
  static std::string kept;
  kept = launch.problem;
  return kept.empty() ? nullptr : kept.c_str();
}

}  // namespace shim

void __syncthreads() {
  shim::running->state = shim::State::kAtBarrier;
  shim::leave();
}
