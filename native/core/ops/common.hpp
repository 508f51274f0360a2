// What the argument structs of every op share: enumerations, the visitor that lists an op's fields
// in order, and the helpers of check().
#pragma once
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

}  // namespace spr2q
