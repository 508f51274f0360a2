// The growing scratch of one stream: blocks that only ever grow, the
// last one in use. An earlier block stays until the stream goes, since a recorded graph may hold
// its address; doubling bounds what that wastes to the size of the last.
#pragma once
#include <cstdint>
#include <vector>

namespace spr2q {
namespace cuda {

struct ScratchBlock {
  void* data;
  int64_t bytes;
};

constexpr int64_t kScratchAlignment = 256;
constexpr int64_t kFirstScratchBytes = 1 << 20;
constexpr int64_t kFirstArrivalBytes = 16 << 10;  // more than an op of the two networks counts in

struct ScratchPool {
  std::vector<ScratchBlock> blocks;
  int64_t used = 0;   // of the last block
  int64_t depth = 0;  // ops in flight on the host: an op that calls an op
  std::vector<ScratchBlock> arrivals;  // counters of blocks, the last block of them in use

  void enter() {
    if (depth++ == 0) used = 0;
  }
  void leave() { --depth; }

  // allocate(bytes) returns null on failure.
  template <class Allocate>
  void* take(int64_t bytes, Allocate allocate) {
    bytes = (bytes + kScratchAlignment - 1) / kScratchAlignment * kScratchAlignment;
    const int64_t last = blocks.empty() ? 0 : blocks.back().bytes;
    if (blocks.empty() || used + bytes > last) {
      const int64_t grown = 2 * last > kFirstScratchBytes ? 2 * last : kFirstScratchBytes;
      const int64_t size = grown > bytes ? grown : bytes;
      void* data = allocate(size);
      if (!data) return nullptr;
      blocks.push_back({data, size});
      used = 0;
    }
    void* data = static_cast<char*>(blocks.back().data) + used;
    used += bytes;
    return data;
  }
};

}  // namespace cuda
}  // namespace spr2q
