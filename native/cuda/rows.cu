// Moving whole rows by an index (rows.cuh), a thread for every piece.
#include "rows.cuh"

namespace spr2q {
namespace cuda {
namespace {

template <class Piece, bool kGather>
__global__ void __launch_bounds__(kElementBlock) move_kernel(Move a) {
  for (int64_t i = first_element(); i < a.rows * a.per_row; i += element_stride()) {
    move_piece<Piece, kGather>(a, i / a.per_row, i % a.per_row);
  }
}

template <bool kGather, class Args>
void move(const Args& a, int64_t limit) {
  const Move move = move_of(a, limit);
  launch(move.wide ? move_kernel<float4, kGather> : move_kernel<float, kGather>,
         dim3(element_grid(move.rows * move.per_row)), dim3(kElementBlock), 0, move);
}

}  // namespace

void gather_rows(const GatherRows& a) { move<true>(a, a.x.size / a.channels); }
void scatter_rows(const ScatterRows& a) { move<false>(a, a.y.size / a.channels); }

}  // namespace cuda
}  // namespace spr2q
