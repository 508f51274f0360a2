// Memory of plan runs, counted: the arena of each run, and the scratch that threads keep. The counts
// answer one question: how much did runs need at once at the worst moment (peak_bytes). The block kept
// between runs is not counted, nor is what it has beyond the run that reuses it.
#pragma once
#include <cstdint>

namespace spr2q {

// One block on a 64-byte boundary, contents undefined, given back with the object. Large blocks are
// pages of the system's, not malloc's: it would keep some of each for every thread that ever ran a
// plan, several times the arena in the end. One block of moderate size is kept for the next run,
// since fresh pages cost a small plan a fifth of its time.
class Arena {
 public:
  explicit Arena(int64_t bytes);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // Null where the system has no memory for it.
  uint8_t* data() const { return data_; }

 private:
  int64_t bytes_;  // asked for, rounded up
  int64_t block_;  // of the block, which may be up to twice as large
  uint8_t* data_;
};

// Gives back the block that is kept between runs.
void drop_spare();

// Notes that `change` bytes more (or fewer, below zero) are in use. Any thread may call it.
void count_bytes(int64_t change);

// Most bytes in use at once so far, or since the last call with `restart`.
int64_t peak_bytes(bool restart);

}  // namespace spr2q
