// Blocks of one kernel that wait for others of it. A block's work follows from its ticket, and it waits
// for blocks of lower tickets alone: those are under way already, however many fit the device, so
// none waits for ever. The counters and flags are zero before a launch and after it.
#pragma once
#include "device.cuh"

namespace spr2q {
namespace cuda {

struct Tickets {
  unsigned *next, *finished, *flags;  // one after the other
  int64_t count;                      // of all three
};

// With `flags` flags; of a kernel whose grid has one dimension. Null pointers after a failure.
static inline Tickets tickets(int64_t flags) {
  unsigned* all = arrivals(flags + 2);
  if (!all) return {nullptr, nullptr, nullptr, 0};
  return {all, all + 1, all + 2, flags + 2};
}

// The block's ticket, from 0; at the beginning of the kernel.
SPR2Q_DEVICE unsigned take_ticket(const Tickets& a) {
  __shared__ unsigned ticket;
  if (threadIdx.x == 0) ticket = atomicInc(a.next, ~0u);
  __syncthreads();
  return ticket;
}

// What this block wrote before is there for whoever waits for the flag; every thread calls it.
SPR2Q_DEVICE void raise(unsigned* flag) {
  __syncthreads();
  if (threadIdx.x != 0) return;
  __threadfence();
  *static_cast<volatile unsigned*>(flag) = 1;
}

// For one thread, or for each its own flags; a barrier follows, for all of the block.
SPR2Q_DEVICE void wait_for(const unsigned* flag) {
#if defined(SPR2Q_CUDA_SHIM)
  // Where blocks run one after the other, what has not come by now never does.
  if (*flag == 0 && shim::one_block()) shim::trap("a block waits for one that is not under way");
#endif
  while (*static_cast<const volatile unsigned*>(flag) == 0) {
  }
  __threadfence();  // nothing that the block reads behind its barrier is older than the flag
}

// At the end of the kernel: its last block leaves zeros.
SPR2Q_DEVICE void put_back(const Tickets& a) {
  if (!arrives_last(a.finished, gridDim.x)) return;
  for (int64_t i = threadIdx.x; i < a.count; i += blockDim.x) a.next[i] = 0;
}

}  // namespace cuda
}  // namespace spr2q
