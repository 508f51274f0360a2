// Stores past the caches, for values that are read back much later: they leave the caches to others,
// and the lines that they cover are not fetched first.
#pragma once
#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <emmintrin.h>
#endif

namespace spr2q {

// Copies `bytes`; unlike a plain copy it needs a fence before another thread may look.
static inline void stream(uint8_t* to, const uint8_t* from, int64_t bytes) {
#if defined(__x86_64__)
  const int64_t head = -reinterpret_cast<intptr_t>(to) & 15;
  if (head < bytes) {
    std::memcpy(to, from, static_cast<size_t>(head));
    int64_t at = head;
    for (; at + 16 <= bytes; at += 16) {
      _mm_stream_si128(reinterpret_cast<__m128i*>(to + at),
                       _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + at)));
    }
    std::memcpy(to + at, from + at, static_cast<size_t>(bytes - at));
    return;
  }
#endif
  std::memcpy(to, from, static_cast<size_t>(bytes));
}

static inline void stream_fence() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

}  // namespace spr2q
