// What the argument structs of every op share: enumerations, the visitor that lists an op's fields
// in order, and the helpers of check().
#pragma once
#include <cstring>
#include <initializer_list>

#include "../tensor.hpp"

namespace spr2q {

enum Granularity : int64_t { kTensor = 0, kRow = 1, kColumn = 2 };
enum ProbabilityCodes : int64_t { kFloat = 0, kUniform = 1, kHalfExponent = 2 };
enum RoutingMode : int64_t { kArgmax = 0, kSampled = 1 };

#define SPR2Q_FIELDS(...)                     \
  template <class Visitor>                    \
  void visit(Visitor& visitor) {              \
    visitor.fields(#__VA_ARGS__, __VA_ARGS__); \
  }
#define SPR2Q_NEED(condition) \
  if (!(condition)) return "needs " #condition

template <class View>
static inline bool absent_or(const View& view, int64_t size) {
  return view.data == nullptr || view.size >= size;
}
// Values of a tensor in a list at most: their number is one of 32 bits in a table of the GPU's.
constexpr int64_t kMostListed = 1 << 30;
// Pixels of a sample at most where a batch has no samples, whose arrays would bound them.
constexpr int64_t kMostPixelsOfNone = 1 << 20;
// True where floats may lie in these bytes.
static inline bool aligned(const U8& view) {
  return reinterpret_cast<uintptr_t>(view.data) % sizeof(float) == 0;
}
// True where rows * columns elements fit `size`, however large the numbers.
static inline bool holds(int64_t size, int64_t rows, int64_t columns) {
  int64_t product = 0;
  return !__builtin_mul_overflow(rows, columns, &product) && product <= size;
}
static inline int64_t bound_count(int64_t granularity, int64_t rows, int64_t columns) {
  return granularity == kTensor ? 1 : granularity == kRow ? rows : columns;
}
static inline int64_t upper_count(int64_t granularity, int64_t rows) {
  return granularity == kRow ? rows : 1;
}

// The product of all sizes of an argument struct, which it visits: asked before check(), whose own
// products of them then stay within 64 bits.
class SizeProduct {
 public:
  template <class... Fields>
  void fields(const char* names, const Fields&... fields) {
    name_ = names;
    (take(fields), ...);
  }
  bool too_large() const { return !(product_ <= kMost); }
  static constexpr const char* kProblem = "sizes whose product is beyond 2^56";

 private:
  void take(const int64_t& number) {
    const double size = number < 0 ? -static_cast<double>(number) : static_cast<double>(number);
    if (size > 1 && !is_key()) product_ *= size;
    next();
  }
  template <class Other>
  void take(const Other&) {
    next();
  }
  // Keys of the noise and counters of steps are no sizes.
  bool is_key() const {
    for (const char* key : {"seed", "tile", "layer", "first", "step"}) {
      const size_t length = std::strlen(key);
      if (!std::strncmp(name_, key, length) && (name_[length] == ',' || !name_[length])) return true;
    }
    return false;
  }
  void next() {
    while (*name_ && *name_ != ',') ++name_;
    while (*name_ == ',' || *name_ == ' ') ++name_;
  }

  const char* name_ = "";
  double product_ = 1;
  static constexpr double kMost = 72057594037927936.0;  // 2^56
};

}  // namespace spr2q
