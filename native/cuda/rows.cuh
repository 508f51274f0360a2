// Moving whole rows by an index: gather y[i] = x[index[i]], scatter y[index[i]] = x[i]. A piece is a
// value, or four where rows are whole 16-byte pieces; an index outside the tensor skips its row.
#pragma once
#include "device.cuh"

namespace spr2q {
namespace cuda {

struct Move {
  const float* from;
  const int32_t* index;
  float* to;
  int64_t rows, per_row, limit;  // pieces of a row; rows that an index may name
  bool wide;                     // pieces are float4, else float
};

static inline bool of_pieces(const void* data) {
  return reinterpret_cast<uintptr_t>(data) % sizeof(float4) == 0;
}

template <class Args>
static inline Move move_of(const Args& a, int64_t limit) {
  const bool wide = a.channels % 4 == 0 && of_pieces(a.x.data) && of_pieces(a.y.data);
  return {a.x.data, a.index.data, a.y.data, a.rows, wide ? a.channels / 4 : a.channels, limit, wide};
}

// The row that `row` moves from or to, or -1 for none.
SPR2Q_DEVICE int64_t other_row(const Move& a, int64_t row) {
  const int64_t other = a.index[row];
  return other < 0 || other >= a.limit ? -1 : other;
}

template <class Piece, bool kGather>
SPR2Q_DEVICE void move_piece(const Move& a, int64_t row, int64_t piece) {
  const int64_t other = other_row(a, row);
  if (other < 0) return;
  const int64_t here = row * a.per_row + piece, there = other * a.per_row + piece;
  const Piece* from = reinterpret_cast<const Piece*>(a.from);
  Piece* to = reinterpret_cast<Piece*>(a.to);
  if (kGather) to[here] = from[there];
  else to[there] = from[here];
}

}  // namespace cuda
}  // namespace spr2q
