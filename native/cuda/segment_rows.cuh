// What a segment (segment.cu) consists of: calls that work on each row by itself, and what a block
// does for its rows in each of them. The calls are the functions of which the ops' own kernels are
// made, and give their bits.
#pragma once
#include "coded_depthwise.cuh"
#include "elementwise.cuh"
#include "fused_rows.cuh"
#include "routing.cuh"
#include "rows.cuh"

namespace spr2q {
namespace cuda {

constexpr int kSegmentRows = kFusedRows;  // of a block at a time
constexpr int kSegmentThreads = kProductThreads;

enum RowOp : int {
  kFusedLinear,
  kLayerNorm,
  kQuantize,
  kDequantize,
  kQdq,
  kGather,
  kSlice,
  kPrompt,
  kRoute,
  kGelu,
  kSigmoidGate,
  kMultiply,
  kAdd,
  kScale,
  kScaleAdd,
  kDepthwise,
};

// quantize, dequantize and qdq: from and to are floats or codes.
struct Coding {
  const void* from;
  void* to;
  Coder coder;
};
struct Routing {
  Route a;
  const int64_t* more;
};

// Reads rows of other blocks, which an earlier kernel wrote; four channels are a piece.
struct DepthwiseCall {
  Depthwise convolution;
  GatedCodes target;
  int kernel;
};

struct RowCall {
  RowOp op;
  int columns;  // elements of a row, or pieces; none where the call counts them itself
  union {
    Fused fused;
    LayerNorm norm;
    Coding coding;
    Move move;
    SliceBody slice;
    AddPrompt prompt;
    Routing routing;
    GeluBody gelu;
    SigmoidGateBody gate;
    MultiplyBody multiply;
    AddBody add;
    ScaleBody scale;
    ScaleAddBody scale_add;
    DepthwiseCall depthwise;
  };
};

constexpr int kMostJoined = 16;  // calls of a launch

struct RowList {
  int64_t rows;
  int count;
  RowCall calls[kMostJoined];
};

constexpr int kAtOnce = 4;  // values of a thread that are read before the first is written

// write(row, column, read(row, column)) for every value of the block's rows.
template <class Read, class Write>
SPR2Q_DEVICE void each_cell(const Rows& rows, int columns, const Read& read, const Write& write) {
  using Value = decltype(read(int64_t{}, int{}));
  const int n = rows.count * columns;
  for (int begin = static_cast<int>(threadIdx.x); begin < n; begin += kAtOnce * kSegmentThreads) {
    Value values[kAtOnce];
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      const int i = begin + k * kSegmentThreads, row = i / columns;
      if (i < n) values[k] = read(rows[row], i - row * columns);
    }
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      const int i = begin + k * kSegmentThreads, row = i / columns;
      if (i < n) write(rows[row], i - row * columns, values[k]);
    }
  }
}

// body(index) for every value of the block's rows.
template <class Body>
SPR2Q_DEVICE void each_value(const Rows& rows, int columns, const Body& body) {
  for (int i = static_cast<int>(threadIdx.x); i < rows.count * columns; i += kSegmentThreads) {
    if (!rows.map) {
      body(rows.first * columns + i);  // spares the division
      continue;
    }
    const int row = i / columns;
    body(rows[row] * columns + i - row * columns);
  }
}

// to = map(grid, from) for every value of the block's rows, `grid` being that of its column.
template <class From, class To, class Map>
SPR2Q_DEVICE void each_coded(const Coding& a, const Rows& rows, int columns, const Map& map) {
  const Grid grid = grid_of(a.coder);
  each_cell(
      rows, columns,
      [&](int64_t row, int c) {
        return map(grid_in(a.coder, grid, c), static_cast<const From*>(a.from)[row * columns + c]);
      },
      [&](int64_t row, int c, To value) { static_cast<To*>(a.to)[row * columns + c] = value; });
}

SPR2Q_DEVICE void code_rows(const RowCall& call, const Rows& rows) {
  if (call.op == kQuantize) {
    each_coded<float, uint8_t>(call.coding, rows, call.columns, [](const Grid& grid, float x) {
      return static_cast<uint8_t>(code_on(grid, x));
    });
  } else if (call.op == kDequantize) {
    each_coded<uint8_t, float>(call.coding, rows, call.columns, [](const Grid& grid, uint8_t code) {
      return value_on(grid, static_cast<float>(code));
    });
  } else {
    each_coded<float, float>(call.coding, rows, call.columns, [](const Grid& grid, float x) {
      return value_on(grid, code_on(grid, x));
    });
  }
}

template <class Piece>
SPR2Q_DEVICE void gather_pieces(const Move& a, const Rows& rows, int columns) {
  each_cell(
      rows, columns,
      [&](int64_t row, int piece) {
        const int64_t other = other_row(a, row);
        const Piece* from = reinterpret_cast<const Piece*>(a.from);
        return other < 0 ? Piece{} : from[other * a.per_row + piece];
      },
      [&](int64_t row, int piece, const Piece& value) {
        Piece* to = reinterpret_cast<Piece*>(a.to);
        if (other_row(a, row) >= 0) to[row * a.per_row + piece] = value;
      });
}

SPR2Q_DEVICE void gather_rows_of(const RowCall& call, const Rows& rows) {
  if (call.move.wide) gather_pieces<float4>(call.move, rows, call.columns);
  else gather_pieces<float>(call.move, rows, call.columns);
}

SPR2Q_DEVICE void slice_rows(const RowCall& call, const Rows& rows) {
  const SliceBody& a = call.slice;
  each_cell(
      rows, call.columns, [&](int64_t row, int c) { return a.read(row, c); },
      [&](int64_t row, int c, float value) { a.write(row, c, value); });
}

SPR2Q_DEVICE void prompt_rows(const RowCall& call, const Rows& rows) {
  const AddPrompt& a = call.prompt;
  each_cell(
      rows, call.columns, [&](int64_t row, int state) { return prompted(a, row, state); },
      [&](int64_t row, int state, float value) { a.y.data[row * a.states + state] = value; });
}

SPR2Q_DEVICE void scale_add_rows(const RowCall& call, const Rows& rows) {
  for (int i = static_cast<int>(threadIdx.x); i < rows.count * call.columns; i += kSegmentThreads) {
    const int row = i / call.columns;
    call.scale_add(rows[row], i - row * call.columns);
  }
}

SPR2Q_DEVICE void element_rows(const RowCall& call, const Rows& rows) {
  switch (call.op) {
    case kGather: return gather_rows_of(call, rows);
    case kSlice: return slice_rows(call, rows);
    case kPrompt: return prompt_rows(call, rows);
    case kScaleAdd: return scale_add_rows(call, rows);
    case kGelu: return each_value(rows, call.columns, call.gelu);
    case kSigmoidGate: return each_value(rows, call.columns, call.gate);
    case kMultiply: return each_value(rows, call.columns, call.multiply);
    case kAdd: return each_value(rows, call.columns, call.add);
    default: return each_value(rows, call.columns, call.scale);
  }
}

SPR2Q_DEVICE void normed_rows(const LayerNorm& a, const Rows& rows) {
  constexpr int kTogether = 2;  // rows of a warp at once
  for (int row = warp_index() * kTogether; row < rows.count; row += kSegmentThreads / kWarp * kTogether) {
    norm_rows<kTogether>(a, rows.from(row));
  }
}

SPR2Q_DEVICE void route_rows(const Routing& a, const Rows& rows) {
  constexpr int kTokens = kSegmentThreads / kPhiloxLanes;  // at a time: whole warps, past the end too
  for (int first = 0; first < kSegmentRows; first += kTokens) {
    const int row = first + static_cast<int>(threadIdx.x) / kPhiloxLanes;
    route_token(a.a, a.more, row < rows.count ? rows[row] : a.a.batch * a.a.tokens);
  }
}

template <int kKernel>
SPR2Q_DEVICE void depthwise_rows(const DepthwiseCall& a, const Rows& rows, int columns) {
  const int64_t channels = a.convolution.channels;
  const Grid grid = a.target.start();
  for (int i = static_cast<int>(threadIdx.x); i < rows.count * columns; i += kSegmentThreads) {
    const int row = i / columns, c = (i - row * columns) * 4;
    const int64_t pixel = rows[row];
    a.target.put(grid, pixel * channels + c, c,
                 depthwise_pixel<kKernel, 4>(a.convolution, pixel, c));
  }
}

// A block's rows, at most kSegmentRows, through one call, behind a barrier if another came before.
template <int kWidth, int kTilesN>
SPR2Q_DEVICE void take_through(const RowCall& call, const Rows& rows,
                               FusedStaging<kTilesN>& staged, float* tile) {
  switch (call.op) {
    case kFusedLinear: return fused_rows<kWidth, kTilesN>(call.fused, rows, staged, tile);
    case kQuantize:
    case kDequantize:
    case kQdq: return code_rows(call, rows);
    case kLayerNorm: return normed_rows(call.norm, rows);
    case kRoute: return route_rows(call.routing, rows);
    case kDepthwise:
      if (call.depthwise.kernel == 3) return depthwise_rows<3>(call.depthwise, rows, call.columns);
      return depthwise_rows<5>(call.depthwise, rows, call.columns);
    default: return element_rows(call, rows);
  }
}

}  // namespace cuda
}  // namespace spr2q
