// See arena.hpp. The peak is raised by whoever raises the count, so it misses no moment.
#include "arena.hpp"

#include <sys/mman.h>

#include <atomic>
#include <cstdlib>
#include <mutex>
#include <utility>

namespace spr2q {
namespace {

// Blocks from this size on are made of the system's pages, on 2 MiB ones where it has them: a large
// image's values span tens of thousands of small pages, each a fault when it is first touched and an
// entry that the address cache has no room for.
constexpr int64_t kHugePage = 2 << 20;
constexpr int64_t kSpare = 128 << 20;  // bytes of the block kept between runs, at most

std::atomic<int64_t> held{0};
std::atomic<int64_t> peak{0};

struct Pages {
  uint8_t* data = nullptr;
  int64_t bytes = 0;
};

std::mutex spare_mutex;
Pages spare;  // belongs to no run

// Puts `pages` in the spare's place and returns what was there.
Pages exchange_spare(Pages pages) {
  std::lock_guard<std::mutex> lock(spare_mutex);
  return std::exchange(spare, pages);
}

void unmap(const Pages& pages) {
  if (pages.data) munmap(pages.data, static_cast<size_t>(pages.bytes));
}

// Fresh pages, on a boundary of kHugePage: mapped with room for it, whose ends are given back.
Pages map(int64_t bytes) {
  const int64_t rounded = (bytes + kHugePage - 1) / kHugePage * kHugePage;
  void* wide = mmap(nullptr, static_cast<size_t>(rounded + kHugePage), PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (wide == MAP_FAILED) return {};
  uint8_t* begin = static_cast<uint8_t*>(wide);
  const int64_t over = static_cast<int64_t>(reinterpret_cast<uintptr_t>(begin) % kHugePage);
  const int64_t before = over ? kHugePage - over : 0;
  if (before) munmap(begin, static_cast<size_t>(before));
  if (before < kHugePage) munmap(begin + before + rounded, static_cast<size_t>(kHugePage - before));
#if defined(MADV_HUGEPAGE)
  madvise(begin + before, static_cast<size_t>(rounded), MADV_HUGEPAGE);
#endif
  return {begin + before, rounded};
}

// The spare where it is large enough and not far too large, else fresh pages in its stead.
Pages take(int64_t bytes) {
  const Pages kept = exchange_spare({});
  if (kept.bytes >= bytes && kept.bytes <= 2 * bytes) return kept;
  unmap(kept);
  return map(bytes);
}

// Keeps the larger of `pages` and the spare, within kSpare.
void give(Pages pages) {
  if (pages.bytes > kSpare) return unmap(pages);
  const Pages kept = exchange_spare({});
  if (kept.bytes > pages.bytes) {
    unmap(pages);
    pages = kept;
  } else {
    unmap(kept);
  }
  unmap(exchange_spare(pages));
}

}  // namespace

Arena::Arena(int64_t bytes) : bytes_((bytes + 127) / 64 * 64), block_(bytes_) {
  if (bytes_ < kHugePage) {
    data_ = static_cast<uint8_t*>(std::aligned_alloc(64, static_cast<size_t>(bytes_)));
  } else {
    const Pages pages = take(bytes_);
    data_ = pages.data;
    block_ = pages.bytes;
  }
  if (data_) count_bytes(bytes_);
}

Arena::~Arena() {
  if (!data_) return;
  count_bytes(-bytes_);
  if (bytes_ < kHugePage) std::free(data_);
  else give({data_, block_});
}

void count_bytes(int64_t change) {
  const int64_t now = held.fetch_add(change) + change;
  int64_t before = peak.load();
  while (now > before && !peak.compare_exchange_weak(before, now)) {
  }
}

void drop_spare() { unmap(exchange_spare({})); }

int64_t peak_bytes(bool restart) {
  return restart ? peak.exchange(held.load()) : peak.load();
}

}  // namespace spr2q
