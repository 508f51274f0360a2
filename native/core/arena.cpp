// See arena.hpp. The peak is raised by whoever raises the count, so it misses no moment.
#include "arena.hpp"

#include <atomic>
#include <mutex>
#include <utility>

#include "system.hpp"

namespace spr2q {
namespace {

// Blocks of kHugePage and more are made of the system's pages, on 2 MiB ones where it has them: a large
// image's values span tens of thousands of small pages, each a fault when it is first touched and an
// entry that the address cache has no room for.
constexpr int64_t kSpare = 128 << 20;  // bytes of the block kept between runs, at most

std::atomic<int64_t> held{0};
std::atomic<int64_t> peak{0};

std::mutex spare_mutex;
Pages spare;  // belongs to no run

// Puts `pages` in the spare's place and returns what was there.
Pages exchange_spare(Pages pages) {
  std::lock_guard<std::mutex> lock(spare_mutex);
  return std::exchange(spare, pages);
}

// The spare where it is large enough and not far too large, else fresh pages in its stead.
Pages take(int64_t bytes) {
  const Pages kept = exchange_spare({});
  if (kept.bytes >= bytes && kept.bytes <= 2 * bytes) return kept;
  unmap_pages(kept);
  return map_pages(bytes);
}

// Keeps the larger of `pages` and the spare, within kSpare.
void give(Pages pages) {
  if (pages.bytes > kSpare) return unmap_pages(pages);
  const Pages kept = exchange_spare({});
  if (kept.bytes > pages.bytes) {
    unmap_pages(pages);
    pages = kept;
  } else {
    unmap_pages(kept);
  }
  unmap_pages(exchange_spare(pages));
}

}  // namespace

Arena::Arena(int64_t bytes) : bytes_((bytes + 127) / 64 * 64), block_(bytes_) {
  if (bytes_ < kHugePage) {
    data_ = static_cast<uint8_t*>(aligned_block(static_cast<size_t>(bytes_)));
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
  if (bytes_ < kHugePage) free_aligned(data_);
  else give({data_, block_});
}

void count_bytes(int64_t change) {
  const int64_t now = held.fetch_add(change) + change;
  int64_t before = peak.load();
  while (now > before && !peak.compare_exchange_weak(before, now)) {
  }
}

void drop_spare() { unmap_pages(exchange_spare({})); }

int64_t peak_bytes(bool restart) {
  return restart ? peak.exchange(held.load()) : peak.load();
}

}  // namespace spr2q
