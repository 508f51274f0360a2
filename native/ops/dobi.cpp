// DOBI, the initial search of quantiser bounds: of 100 ranges that shrink from max - min, the one
// with the least squared error of Eq. 1, the widest on ties. x: (rows, columns); bounds per tensor,
// per row (each row searched by itself), or one common range for given column offsets. Errors are
// summed in double. Constant data gets a range of kDobiLeastRange about its value.
#include "../core/grid.hpp"

namespace spr2q {
namespace ops {
namespace {

double squared_error(const float* x, int64_t n, const Grid& grid) {
  double total = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double miss = static_cast<double>(x[i]) - value_on(grid, code_on(grid, x[i]));
    total += miss * miss;
  }
  return total;
}

// The best bounds of n values.
Bounds search(const float* x, int64_t n, int64_t bits, bool one_sided) {
  float least = x[0], most = x[0];
  for (int64_t i = 1; i < n; ++i) {
    least = x[i] < least ? x[i] : least;
    most = x[i] > most ? x[i] : most;
  }
  Bounds best = dobi_candidate(least, most, 0, one_sided);
  double best_error = squared_error(x, n, grid_between(best.lower, best.upper, bits));
  for (int i = 1; i < kDobiCandidates; ++i) {
    const Bounds bounds = dobi_candidate(least, most, i, one_sided);
    const double error = squared_error(x, n, grid_between(bounds.lower, bounds.upper, bits));
    if (error < best_error) {
      best = bounds;
      best_error = error;
    }
  }
  return best;
}

float search_range(const Dobi& a) {
  float largest = 0, size = 0;
  for (int64_t i = 0; i < a.rows * a.columns; ++i) {
    const float x = a.x.data[i], above = x - a.lower.data[i % a.columns];
    largest = above > largest ? above : largest;
    size = __builtin_fabsf(x) > size ? __builtin_fabsf(x) : size;
  }
  float best = dobi_range(largest, size, 0);
  double best_error = __builtin_inf();
  for (int candidate = 0; candidate < kDobiCandidates; ++candidate) {
    const float range = dobi_range(largest, size, candidate);
    double error = 0;
    for (int64_t i = 0; i < a.rows * a.columns; ++i) {
      const Grid grid = grid_from(a.lower.data[i % a.columns], range, a.bits);
      error += squared_error(a.x.data + i, 1, grid);
    }
    if (error < best_error) {
      best = range;
      best_error = error;
    }
  }
  return best;
}

}  // namespace

void dobi(const Dobi& a) {
  if (a.granularity == kColumn) {
    a.upper.data[0] = search_range(a);
    return;
  }
  const int64_t count = a.granularity == kRow ? a.rows : 1;
  const int64_t n = a.rows * a.columns / count;
  for (int64_t i = 0; i < count; ++i) {
    const Bounds best = search(a.x.data + i * n, n, a.bits, a.one_sided != 0);
    a.lower.data[i] = best.lower;
    a.upper.data[i] = best.upper;
  }
}

}  // namespace ops
}  // namespace spr2q
