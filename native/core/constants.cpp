// See constants.hpp. Blocks are found by a checksum and compared whole, so equal sums do no harm.
#include "constants.hpp"

#include <cstring>
#include <iterator>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "system.hpp"

namespace spr2q {
namespace {

using Blocks = std::unordered_multimap<uint64_t, std::weak_ptr<const Constant>>;

std::mutex mutex;
int64_t held = 0;  // guarded by the mutex

// Never destroyed: threads may still end their runs while the process exits.
Blocks& blocks() {
  static Blocks* instance = new Blocks();
  return *instance;
}

uint64_t checksum(const uint8_t* data, int64_t bytes) {
  uint64_t sum = 0x9e3779b97f4a7c15u ^ static_cast<uint64_t>(bytes);
  for (int64_t at = 0; at < bytes; at += 8) {
    uint64_t word = 0;
    std::memcpy(&word, data + at, static_cast<size_t>(bytes - at < 8 ? bytes - at : 8));
    sum = (sum ^ word) * 0xff51afd7ed558ccdu;
    sum ^= sum >> 32;
  }
  return sum;
}

// Frees a block and its entry. Takes the mutex, so no owner may let go of a block under it.
struct Release {
  uint64_t sum;
  void operator()(const Constant* block) const {
    {
      std::lock_guard<std::mutex> lock(mutex);
      held -= block->bytes;
      const auto same = blocks().equal_range(sum);
      for (auto at = same.first; at != same.second;) {
        at = at->second.expired() ? blocks().erase(at) : std::next(at);
      }
    }
    free_aligned(const_cast<uint8_t*>(block->data));
    delete block;
  }
};

std::shared_ptr<const Constant> find(uint64_t sum, const uint8_t* data, int64_t bytes) {
  std::vector<std::shared_ptr<const Constant>> seen;  // let go of behind the lock
  std::lock_guard<std::mutex> lock(mutex);
  const auto range = blocks().equal_range(sum);
  for (auto at = range.first; at != range.second; ++at) {
    seen.push_back(at->second.lock());
    const Constant* known = seen.back().get();
    if (known && known->bytes == bytes &&
        (bytes == 0 || !std::memcmp(known->data, data, static_cast<size_t>(bytes)))) {
      return seen.back();
    }
  }
  return nullptr;
}

}  // namespace

std::shared_ptr<const Constant> share_constant(const uint8_t* data, int64_t bytes) {
  const uint64_t sum = checksum(data, bytes);
  if (auto known = find(sum, data, bytes)) return known;
  const size_t rounded = (static_cast<size_t>(bytes) + 127) / 64 * 64;
  uint8_t* copy = static_cast<uint8_t*>(aligned_block(rounded));
  if (!copy) return nullptr;
  if (bytes > 0) std::memcpy(copy, data, static_cast<size_t>(bytes));
  {
    std::lock_guard<std::mutex> lock(mutex);
    held += bytes;
  }
  std::shared_ptr<const Constant> made(new Constant{copy, bytes}, Release{sum});
  std::lock_guard<std::mutex> lock(mutex);
  blocks().emplace(sum, made);
  return made;
}

int64_t constant_bytes() {
  std::lock_guard<std::mutex> lock(mutex);
  return held;
}

}  // namespace spr2q
