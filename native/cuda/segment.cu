// Segments of a plan (lib/infer/segments.ts): calls of which each works on every row by itself, so
// that a row needs no other block between them. A block takes 64 rows through all of them, with a
// barrier between two calls; what one leaves for the next lies in the arena, and so in the second
// level cache. The calls themselves are the functions of which the ops' own kernels are made, and
// give their bits. The list of calls is a parameter of the kernel, as recorded graphs need it.
#include "segment.hpp"

#include "elementwise.cuh"
#include "fused_rows.cuh"
#include "routing.cuh"
#include "rows.cuh"

namespace spr2q {
namespace cuda {
namespace {

constexpr int kRows = kFusedRows;  // of a block
constexpr int kThreads = kProductThreads;
constexpr int kBlocks = 3;  // on a multiprocessor: shared memory has no room for more on sm_86 and 89

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
  };
};

constexpr int kMostJoined = 16;  // calls of a launch

struct RowList {
  int64_t rows;
  int count;
  RowCall calls[kMostJoined];
};

// Never copied, neither to local memory nor to a fibre's stack.
#if defined(SPR2Q_CUDA_SHIM)
#define SPR2Q_ROW_LIST const RowList&
#else
#define SPR2Q_ROW_LIST const __grid_constant__ RowList
#endif

// Rows of a block.
struct Range {
  int64_t first;
  int count;
};

constexpr int kAtOnce = 4;  // values of a thread that are read before the first is written

// write(row, column, read(row, column)) for every value of the block's rows.
template <class Read, class Write>
SPR2Q_DEVICE void each_cell(const Range& rows, int columns, const Read& read, const Write& write) {
  using Value = decltype(read(int64_t{}, int{}));
  const int n = rows.count * columns;
  for (int begin = static_cast<int>(threadIdx.x); begin < n; begin += kAtOnce * kThreads) {
    Value values[kAtOnce];
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      const int i = begin + k * kThreads, row = i / columns;
      if (i < n) values[k] = read(rows.first + row, i - row * columns);
    }
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      const int i = begin + k * kThreads, row = i / columns;
      if (i < n) write(rows.first + row, i - row * columns, values[k]);
    }
  }
}

// body(index) for every value of the block's rows.
template <class Body>
SPR2Q_DEVICE void each_value(const Range& rows, int columns, const Body& body) {
  const int64_t first = rows.first * columns;
  for (int i = static_cast<int>(threadIdx.x); i < rows.count * columns; i += kThreads) {
    body(first + i);
  }
}

// to = map(grid, from) for every value of the block's rows, `grid` being that of its column.
template <class From, class To, class Map>
SPR2Q_DEVICE void each_coded(const Coding& a, const Range& rows, int columns, const Map& map) {
  const Grid grid = grid_of(a.coder);
  each_cell(
      rows, columns,
      [&](int64_t row, int c) {
        return map(grid_in(a.coder, grid, c), static_cast<const From*>(a.from)[row * columns + c]);
      },
      [&](int64_t row, int c, To value) { static_cast<To*>(a.to)[row * columns + c] = value; });
}

SPR2Q_DEVICE void code_rows(const RowCall& call, const Range& rows) {
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
SPR2Q_DEVICE void gather_pieces(const Move& a, const Range& rows, int columns) {
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

SPR2Q_DEVICE void gather_rows_of(const RowCall& call, const Range& rows) {
  if (call.move.wide) gather_pieces<float4>(call.move, rows, call.columns);
  else gather_pieces<float>(call.move, rows, call.columns);
}

SPR2Q_DEVICE void slice_rows(const RowCall& call, const Range& rows) {
  const SliceBody& a = call.slice;
  each_cell(
      rows, call.columns, [&](int64_t row, int c) { return a.read(row, c); },
      [&](int64_t row, int c, float value) { a.write(row, c, value); });
}

SPR2Q_DEVICE void prompt_rows(const RowCall& call, const Range& rows) {
  const AddPrompt& a = call.prompt;
  each_cell(
      rows, call.columns, [&](int64_t row, int state) { return prompted(a, row, state); },
      [&](int64_t row, int state, float value) { a.y.data[row * a.states + state] = value; });
}

SPR2Q_DEVICE void scale_add_rows(const RowCall& call, const Range& rows) {
  for (int i = static_cast<int>(threadIdx.x); i < rows.count * call.columns; i += kThreads) {
    const int row = i / call.columns;
    call.scale_add(rows.first + row, i - row * call.columns);
  }
}

SPR2Q_DEVICE void element_rows(const RowCall& call, const Range& rows) {
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

SPR2Q_DEVICE void normed_rows(const LayerNorm& a, const Range& rows) {
  constexpr int kTogether = 2;  // rows of a warp at once
  for (int row = warp_index() * kTogether; row < rows.count; row += kThreads / kWarp * kTogether) {
    norm_rows<kTogether>(a, rows.first + row, rows.count - row);
  }
}

SPR2Q_DEVICE void route_rows(const Routing& a, const Range& rows) {
  constexpr int kTokens = kThreads / kPhiloxLanes;  // at a time: whole warps, past the end too
  for (int row = 0; row < kRows; row += kTokens) {
    route_token(a.a, a.more, rows.first + row + threadIdx.x / kPhiloxLanes);
  }
}

template <int kWidth, int kTilesN>
__global__ void __launch_bounds__(kThreads, kBlocks) segment_kernel(SPR2Q_ROW_LIST list) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  if constexpr (kWidth == 4) return __trap();  // launch code takes width 8 from kFirst8BitOnly on
#endif
  SPR2Q_DYNAMIC_SHARED(float, tile);
  __shared__ FusedStaging<kTilesN> staged;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kRows, left = list.rows - first;
  const Range rows{first, left < kRows ? static_cast<int>(left) : kRows};
  for (int at = 0; at < list.count; ++at) {
    const RowCall& call = list.calls[at];
    if (at > 0) __syncthreads();  // the rows of the call before are there
    switch (call.op) {
      case kFusedLinear: fused_rows<kWidth, kTilesN>(call.fused, first, staged, tile); break;
      case kQuantize:
      case kDequantize:
      case kQdq: code_rows(call, rows); break;
      case kLayerNorm: normed_rows(call.norm, rows); break;
      case kRoute: route_rows(call.routing, rows); break;
      default: element_rows(call, rows); break;
    }
  }
}

// ---- Collecting -------------------------------------------------------------------------------

struct Pending {
  RowList list;
  int width;                // of operands on the tensor cores: 4 or 8
  int64_t narrow, wide;     // columns of all products, padded to tiles of 48 and of 64
  int64_t shared;           // bytes of the widest tile
};
thread_local Pending pending;

void clear() {
  pending.list.count = 0;
  pending.width = 4;
  pending.narrow = pending.wide = pending.shared = 0;
}

void launch_pending() {
  const RowList& list = pending.list;
  if (list.count > 0) {
    const bool narrow = pending.narrow <= pending.wide;
    const auto kernel = pending.width == 4
                            ? (narrow ? segment_kernel<4, 6> : segment_kernel<4, 8>)
                            : (narrow ? segment_kernel<8, 6> : segment_kernel<8, 8>);
    const int64_t staged = sizeof(FusedStaging<8>);
    if (!failed() && pending.shared + staged > kPlainSharedBytes) {
      allow_shared(reinterpret_cast<const void*>(kernel), pending.shared);
    }
    launch(kernel, dim3(grid_size(divide_up(list.rows, kRows))), dim3(kThreads), pending.shared,
           list);
  }
  clear();
}

// Room for one more call; `columns`: elements or pieces of a row.
RowCall& next(RowOp op, int64_t columns) {
  if (pending.list.count == kMostJoined) launch_pending();
  RowCall& call = pending.list.calls[pending.list.count++];
  call.op = op;
  call.columns = static_cast<int>(columns);
  return call;
}

// A call by itself, behind those that were collected.
template <class Args, void (*op)(const Args&)>
void alone(const Args& a) {
  launch_pending();
  op(a);
}

}  // namespace

#define SPR2Q_DECLARE(op, Args) void op(const Args&);
SPR2Q_OPS(SPR2Q_DECLARE)
#undef SPR2Q_DECLARE

namespace {

// Rows of so many elements are not counted in 32 bits; no network has them.
constexpr int64_t kMostColumns = 1 << 24;

void join(const FusedCodedLinear& a) {
  if (a.rows != pending.list.rows) return alone<FusedCodedLinear, fused_coded_linear>(a);
  const Fused fused = fused_of(a);
  next(kFusedLinear, 0).fused = fused;
  if (number_width(a.x_bits, a.weight_bits) == 8) pending.width = 8;
  pending.narrow += round_up(a.out, 48);
  pending.wide += round_up(a.out, 64);
  if (tile_bytes(fused) > pending.shared) pending.shared = tile_bytes(fused);
}

void join(const LayerNorm& a) {
  if (a.rows != pending.list.rows) return alone<LayerNorm, layer_norm>(a);
  next(kLayerNorm, 0).norm = a;
}

// A quantiser with the bounds of its rows, or other rows than the segment's, runs by itself.
template <class Args, void (*op)(const Args&), class From, class To>
void join_coding(const Args& a, RowOp kind, const From* from, To* to) {
  const bool joins = a.rows == pending.list.rows && a.granularity != kRow && a.columns < kMostColumns;
  if (!joins) return alone<Args, op>(a);
  const Coder coder{a.lower.data, a.upper.data, nullptr, a.bits, a.granularity == kColumn};
  next(kind, a.columns).coding = {from, to, coder};
}
void join(const Quantize& a) {
  join_coding<Quantize, quantize>(a, kQuantize, a.x.data, a.codes.data);
}
void join(const Dequantize& a) {
  join_coding<Dequantize, dequantize>(a, kDequantize, a.codes.data, a.y.data);
}
void join(const Qdq& a) { join_coding<Qdq, qdq>(a, kQdq, a.x.data, a.y.data); }

void join(const GatherRows& a) {
  const bool joins = a.rows == pending.list.rows && a.channels < kMostColumns;
  if (!joins) return alone<GatherRows, gather_rows>(a);
  const Move move = move_of(a, a.x.size / a.channels);
  next(kGather, move.per_row).move = move;
}
void join(const SliceColumns& a) {
  const bool joins = a.rows == pending.list.rows && a.count < kMostColumns;
  if (!joins) return alone<SliceColumns, slice_columns>(a);
  next(kSlice, a.count).slice = {a};
}
void join(const AddPrompt& a) {
  const bool joins = a.rows == pending.list.rows && a.states < kMostColumns;
  if (!joins) return alone<AddPrompt, add_prompt>(a);
  next(kPrompt, a.states).prompt = a;
}
void join(const Route& a) {
  if (a.batch * a.tokens != pending.list.rows) return alone<Route, route>(a);
  next(kRoute, 0).routing = {a, noise_cell()};
}
void join(const ScaleAdd& a) {
  const bool joins = a.rows == pending.list.rows && a.channels < kMostColumns;
  if (!joins) return alone<ScaleAdd, scale_add>(a);
  next(kScaleAdd, a.channels).scale_add = {a};
}

// Ops that count elements: those of a row, or 0 where rows do not divide them.
template <class Args>
int64_t row_elements(const Args& a) {
  const int64_t rows = pending.list.rows, columns = a.n / rows;
  return columns * rows == a.n && columns < kMostColumns ? columns : 0;
}
void join(const Gelu& a) {
  const int64_t columns = row_elements(a);
  if (!columns) return alone<Gelu, gelu>(a);
  next(kGelu, columns).gelu = {a};
}
void join(const SigmoidGate& a) {
  const int64_t columns = row_elements(a);
  if (!columns) return alone<SigmoidGate, sigmoid_gate>(a);
  next(kSigmoidGate, columns).gate = {a};
}
void join(const Multiply& a) {
  const int64_t columns = row_elements(a);
  if (!columns) return alone<Multiply, multiply>(a);
  next(kMultiply, columns).multiply = {a};
}
void join(const Add& a) {
  const int64_t columns = row_elements(a);
  if (!columns) return alone<Add, add>(a);
  next(kAdd, columns).add = {a};
}
void join(const Scale& a) {
  const int64_t columns = row_elements(a);
  if (!columns) return alone<Scale, scale>(a);
  next(kScale, columns).scale = {a, static_cast<float>(a.factor)};
}

Backend joining() {
  Backend table = {
      kBackendAbiVersion, "cuda, in segments",
#define SPR2Q_ENTRY(op, Args) alone<Args, op>,
      SPR2Q_OPS(SPR2Q_ENTRY)
#undef SPR2Q_ENTRY
  };
  table.fused_coded_linear = join;
  table.layer_norm = join;
  table.quantize = join;
  table.dequantize = join;
  table.qdq = join;
  table.gather_rows = join;
  table.slice_columns = join;
  table.add_prompt = join;
  table.route = join;
  table.gelu = join;
  table.sigmoid_gate = join;
  table.multiply = join;
  table.add = join;
  table.scale = join;
  table.scale_add = join;
  return table;
}

}  // namespace

void begin_segment(int64_t rows) {
  clear();
  pending.list.rows = rows;
}

void end_segment() { launch_pending(); }

const Backend* joining_backend() {
  static const Backend table = joining();
  return &table;
}

}  // namespace cuda
}  // namespace spr2q
