// Work on many tensors in one launch: what each needs stands in a table among the kernel's
// parameters, so that no copy to the device and no wait goes before, and a graph records it whole.
// A kernel takes 32,764 bytes of parameters (CUDA 12.1, sm_70 and later); a list longer than a table
// takes further launches. Blocks of the grid belong to the entries in their order.
#pragma once
#include "device.cuh"

namespace spr2q {
namespace cuda {

constexpr int kTableBytes = 32000;  // the rest is for the kernel's other parameters

template <class Entry>
struct Table {
  static constexpr int kMost =
      (kTableBytes - static_cast<int>(2 * sizeof(int64_t))) / static_cast<int>(sizeof(Entry) + sizeof(int));
  int count, blocks;
  int first[kMost + 1];  // block with which an entry begins
  Entry entries[kMost];
};

// A kernel's table parameter: never copied, neither to local memory nor to a fibre's stack.
#if defined(SPR2Q_CUDA_SHIM)
#define SPR2Q_TABLE(Entry) const Table<Entry>&
#else
#define SPR2Q_TABLE(Entry) const __grid_constant__ Table<Entry>
#endif

// The entry to which this block belongs.
template <class Entry>
SPR2Q_DEVICE int entry_of_block(const Table<Entry>& table) {
  int low = 0, high = table.count;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (table.first[middle] <= static_cast<int>(blockIdx.x)) low = middle;
    else high = middle;
  }
  return low;
}

// Place of this thread among the values of entry `at`, of which a block takes one a thread.
template <class Entry>
SPR2Q_DEVICE int64_t place_in(const Table<Entry>& table, int at) {
  return (static_cast<int64_t>(blockIdx.x) - table.first[at]) * kElementBlock + threadIdx.x;
}

// Collects entries and launches `go(table)` whenever a table is full, and at the end.
template <class Entry, class Go>
class TableFiller {
 public:
  explicit TableFiller(const Go& go) : go_(go) {}
  // An entry of `blocks` blocks; none is no work.
  void add(const Entry& entry, int64_t blocks) {
    if (blocks == 0) return;
    if (table_.count == Table<Entry>::kMost || table_.blocks + blocks > kMostGrid) flush();
    table_.entries[table_.count] = entry;
    table_.first[table_.count++] = table_.blocks;
    table_.blocks += static_cast<int>(blocks);
  }
  void flush() {
    if (table_.count > 0) go_(table_);
    table_.count = table_.blocks = 0;
  }

 private:
  static constexpr int64_t kMostGrid = INT32_MAX;
  const Go& go_;
  Table<Entry> table_ = {};
};

}  // namespace cuda
}  // namespace spr2q
