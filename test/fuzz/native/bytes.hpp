// The fuzzer's bytes as a source of choices, and argument structs filled from them.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <limits>
#include <memory>
#include <vector>

#include "../../../native/core/backend.hpp"

namespace spr2q {

// Choices, in order; zeros where the bytes have run out.
class Bytes {
 public:
  Bytes(const uint8_t* data, size_t size) : at_(data), end_(data + size) {}
  bool empty() const { return at_ == end_; }
  uint8_t byte() { return at_ < end_ ? *at_++ : 0; }
  int64_t below(int64_t n) { return byte() % n; }
  uint32_t word() {
    uint32_t value = 0;
    for (int i = 0; i < 4; ++i) value = value << 8 | byte();
    return value;
  }

  // A number as a caller might give it: mostly one that an op can work with, sometimes one that
  // overflows, wraps, or is negative.
  int64_t number() {
    static constexpr int64_t kHostile[] = {
        -1,           -2,          -1000000,          INT32_MIN,         INT32_MAX,
        1ll << 31,    1ll << 32,   (1ll << 32) + 1,   1ll << 28,         1ll << 40,
        1ll << 52,    1ll << 53,   -(1ll << 53),      3037000500ll,      4294967291ll,
        65535,        65536,       1ll << 20};
    const uint8_t kind = byte();
    if (kind < 220) return kind % 20;
    if (kind < 236) return byte();
    return kHostile[static_cast<size_t>(byte()) % (sizeof kHostile / sizeof *kHostile)];
  }

 private:
  const uint8_t *at_, *end_;
};

// Contents of the arrays: quick pseudo-random ones in a style that the bytes choose.
class Contents {
 public:
  explicit Contents(Bytes& bytes) : style_(bytes.byte()), state_(bytes.word() | 1) {}

  void fill(float* data, int64_t n) {
    static const float kOdd[] = {0.0f, -0.0f, 1e38f, -1e38f, 1e-42f,
                                 std::numeric_limits<float>::infinity(),
                                 -std::numeric_limits<float>::infinity(),
                                 std::numeric_limits<float>::quiet_NaN()};
    for (int64_t i = 0; i < n; ++i) {
      const uint32_t r = next();
      const bool odd = (style_ & 1) && r % 8 == 0;
      data[i] = odd ? kOdd[r / 8 % 8] : static_cast<float>(static_cast<int32_t>(r)) * scale();
    }
  }
  void fill(uint8_t* data, int64_t n) {
    const uint8_t mask = (style_ & 4) ? 0xff : static_cast<uint8_t>((1 << (style_ >> 4 & 7)) - 1);
    for (int64_t i = 0; i < n; ++i) data[i] = static_cast<uint8_t>(next() >> 8) & mask;
  }
  void fill(int32_t* data, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
      const uint32_t r = next();
      data[i] = (style_ & 1) && r % 16 == 0 ? static_cast<int32_t>(r) : static_cast<int32_t>(r >> 8 & 15);
    }
  }

 private:
  float scale() const { return (style_ & 2) ? 1e-3f : 1e-9f; }
  uint32_t next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 17;
    state_ ^= state_ << 5;
    return state_;
  }
  uint8_t style_;
  uint32_t state_;
};

// One view of an argument struct, whatever its type.
struct ViewField {
  void** data;
  int64_t* size;
  int64_t width;  // bytes an element
};

// Visits a struct: numbers get values from the bytes, views are collected.
class Fields {
 public:
  explicit Fields(Bytes& bytes) : bytes_(bytes) {}

  template <class... Types>
  void fields(const char* names, Types&... values) {
    (take(values), ...);
  }
  std::vector<ViewField> views;

 private:
  void take(F32& view) { add(&view.data, &view.size, 4); }
  void take(I32& view) { add(&view.data, &view.size, 4); }
  void take(U8& view) { add(&view.data, &view.size, 1); }
  void take(F32List& list) { take(list, lists_); }
  void take(U8List& list) { take(list, byte_lists_); }
  template <class List, class View>
  void take(List& list, std::deque<std::vector<View>>& lists) {
    lists.emplace_back(static_cast<size_t>(bytes_.below(4)));
    for (View& view : lists.back()) take(view);
    list = {lists.back().data(), static_cast<int64_t>(lists.back().size())};
  }
  void take(Numbers& numbers) {
    numbers_.emplace_back(static_cast<size_t>(bytes_.below(4)));
    for (double& number : numbers_.back()) take(number);
    numbers = {numbers_.back().data(), static_cast<int64_t>(numbers_.back().size())};
  }
  void take(int64_t& number) { number = bytes_.number(); }
  void take(double& number) {
    static const double kOdd[] = {1.0, 0.5, -1.0, 0.0, 1e300, std::numeric_limits<double>::quiet_NaN()};
    number = kOdd[bytes_.below(6)];
  }
  template <class T>
  void add(T** data, int64_t* size, int64_t width) {
    views.push_back({reinterpret_cast<void**>(data), size, width});
  }
  Bytes& bytes_;
  std::deque<std::vector<F32>> lists_;  // where the lists of the struct lie
  std::deque<std::vector<U8>> byte_lists_;
  std::deque<std::vector<double>> numbers_;
};

constexpr int64_t kMostElements = 4096;  // of a view, so that a call takes well below a millisecond

// Gives every view the least size with which check() still accepts the call, so that one element too
// far is seen. False where no size of at most kMostElements is accepted. Addresses are not read yet.
template <class Args>
bool shrink_views(Args& args, std::vector<ViewField>& views, Bytes& bytes) {
  static uint8_t somewhere[64];
  for (ViewField& view : views) {
    const bool present = bytes.byte() < 200;
    *view.data = present ? somewhere : nullptr;
    *view.size = present ? kMostElements : 0;
  }
  SizeProduct product;
  args.visit(product);
  if (product.too_large() || args.check()) return false;
  for (ViewField& view : views) {
    int64_t accepted = *view.size, refused = -1;
    while (accepted - refused > 1) {
      const int64_t middle = refused + (accepted - refused) / 2;
      *view.size = middle;
      (args.check() ? refused : accepted) = middle;
    }
    *view.size = accepted;
  }
  return true;
}

}  // namespace spr2q
