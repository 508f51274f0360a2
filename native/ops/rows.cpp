// Moving whole rows by an index: gather y[i] = x[index[i]], scatter y[index[i]] = x[i], over
// x, y (rows, channels). With the same permutation one undoes the other, and each is the other's
// gradient. An index outside 0 ... rows-1 skips its row.
#include <cstring>

#include "../core/ops.hpp"

namespace spr2q {
namespace ops {

void gather_rows(const GatherRows& a) {
  for (int64_t i = 0; i < a.rows; ++i) {
    const int64_t from = a.index.data[i];
    if (from < 0 || from >= a.x.size / a.channels) continue;
    std::memcpy(a.y.data + i * a.channels, a.x.data + from * a.channels,
                sizeof(float) * static_cast<size_t>(a.channels));
  }
}

void scatter_rows(const ScatterRows& a) {
  for (int64_t i = 0; i < a.rows; ++i) {
    const int64_t to = a.index.data[i];
    if (to < 0 || to >= a.y.size / a.channels) continue;
    std::memcpy(a.y.data + to * a.channels, a.x.data + i * a.channels,
                sizeof(float) * static_cast<size_t>(a.channels));
  }
}

}  // namespace ops
}  // namespace spr2q
