// Moving whole rows by an index: gather y[i] = x[index[i]], scatter y[index[i]] = x[i]. One thread
// for every value, or for every four where rows are whole 16-byte pieces; an index outside the
// tensor skips its row.
#include "device.cuh"

namespace spr2q {
namespace cuda {
namespace {

struct Move {
  const float* from;
  const int32_t* index;
  float* to;
  int64_t pieces, per_row, limit;  // pieces in all and a row; rows that an index may name
};

template <class Piece, bool kGather>
__global__ void __launch_bounds__(kElementBlock) move_kernel(Move a) {
  const Piece* from = reinterpret_cast<const Piece*>(a.from);
  Piece* to = reinterpret_cast<Piece*>(a.to);
  for (int64_t i = first_element(); i < a.pieces; i += element_stride()) {
    const int64_t row = i / a.per_row, other = a.index[row];
    if (other < 0 || other >= a.limit) continue;
    const int64_t there = other * a.per_row + i % a.per_row;
    if (kGather) to[i] = from[there];
    else to[there] = from[i];
  }
}

bool aligned(const void* data) { return reinterpret_cast<uintptr_t>(data) % sizeof(float4) == 0; }

template <bool kGather, class Args>
void move(const Args& a, int64_t limit) {
  const bool wide = a.channels % 4 == 0 && aligned(a.x.data) && aligned(a.y.data);
  const int64_t per_row = wide ? a.channels / 4 : a.channels;
  const Move move{a.x.data, a.index.data, a.y.data, a.rows * per_row, per_row, limit};
  launch(wide ? move_kernel<float4, kGather> : move_kernel<float, kGather>,
         dim3(element_grid(move.pieces)), dim3(kElementBlock), 0, move);
}

}  // namespace

void gather_rows(const GatherRows& a) { move<true>(a, a.x.size / a.channels); }
void scatter_rows(const ScatterRows& a) { move<false>(a, a.y.size / a.channels); }

}  // namespace cuda
}  // namespace spr2q
