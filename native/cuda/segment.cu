// Segments of a plan (lib/infer/segments.ts): calls of which each works on every row by itself, so
// that a row needs no other block between them. A block takes 64 rows through all of them, with a
// barrier between two calls; what one leaves for the next lies in the arena, and so in the second
// level cache. Behind window attention a block has the rows of its window instead, 64 at a time, and
// makes the attention of all heads first. The list of calls is a parameter of the kernel, as recorded
// graphs need it.
#include "segment.hpp"

#include "coded_attention.cuh"
#include "segment_rows.cuh"

namespace spr2q {
namespace cuda {

#define SPR2Q_DECLARE(op, Args) void op(const Args&);
SPR2Q_OPS(SPR2Q_DECLARE)
#undef SPR2Q_DECLARE

namespace {

constexpr int kBlocks = 3;  // on a multiprocessor: shared memory has no room for more on sm_86 and 89
constexpr int kMostMapped = 256;  // tokens of a window
static_assert(kTileThreads == kSegmentThreads, "one block makes the attention and its rows");

struct WindowList {
  AttentionTiles attention;
  RowList rows;
};
static_assert(sizeof(WindowList) <= 4096, "parameters of a kernel");

// Never copied, neither to local memory nor to a fibre's stack.
#if defined(SPR2Q_CUDA_SHIM)
#define SPR2Q_PARAMETER(Type) const Type&
#else
#define SPR2Q_PARAMETER(Type) const __grid_constant__ Type
#endif

template <int kWidth, int kTilesN>
__global__ void __launch_bounds__(kSegmentThreads, kBlocks)
segment_kernel(SPR2Q_PARAMETER(RowList) list) {
  if (!has_width<kWidth>()) return;
  SPR2Q_DYNAMIC_SHARED(float, tile);
  __shared__ FusedStaging<kTilesN> staged;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kSegmentRows;
  const Rows rows = rows_from(first, list.rows, kSegmentRows);
  for (int at = 0; at < list.count; ++at) {
    if (at > 0) __syncthreads();  // the rows of the call before are there
    take_through<kWidth, kTilesN>(list.calls[at], rows, staged, tile);
  }
}

// A block for every window.
template <int kWidth, int kTilesN>
__global__ void __launch_bounds__(kSegmentThreads, kTileBlocks)
window_segment_kernel(SPR2Q_PARAMETER(WindowList) list) {
  if (!has_width<kWidth>()) return;
  SPR2Q_DYNAMIC_SHARED(unsigned char, shared);
  __shared__ FusedStaging<kTilesN> staged;
  __shared__ int map[kMostMapped];
  const AttentionTiles& attention = list.attention;
  const int positions = static_cast<int>(attention.layout.positions);
  const WindowView view = attend_window(attention, shared, blockIdx.x);
  for (int p = static_cast<int>(threadIdx.x); p < kMostMapped; p += kSegmentThreads) {
    map[p] = p < positions ? view.rows[p] : 0;
  }
  for (int first = 0; first < positions; first += kSegmentRows) {
    const int left = positions - first;
    const Rows rows{0, left < kSegmentRows ? left : kSegmentRows, map + first};
    for (int at = 0; at < list.rows.count; ++at) {
      __syncthreads();  // as above; before the first call, the codes and the map
      take_through<kWidth, kTilesN>(list.rows.calls[at], rows, staged,
                                    reinterpret_cast<float*>(shared));
    }
  }
}

// ---- Collecting -------------------------------------------------------------------------------

struct Pending {
  RowList list;
  CodedWindowAttention attention;  // before the list, where windows > 0
  int64_t windows;
  int width;                // of operands on the tensor cores: 4 or 8
  int64_t narrow, wide;     // columns of all products, padded to tiles of 48 and of 64
  int64_t shared;           // bytes of the widest tile
};
thread_local Pending pending;

void clear() {
  pending.list.count = 0;
  pending.windows = 0;
  pending.width = number_width(1, 1);  // of a segment without products too
  pending.narrow = pending.wide = pending.shared = 0;
}

template <class Kernel, class List>
void launch_list(Kernel* kernel, int64_t blocks, const List& list) {
  const int64_t staged = sizeof(FusedStaging<8>);
  if (!failed() && pending.shared + staged > kPlainSharedBytes) {
    allow_shared(reinterpret_cast<const void*>(kernel), pending.shared);
  }
  launch(kernel, dim3(grid_size(blocks)), dim3(kSegmentThreads), pending.shared, list);
}

void launch_pending() {
  const RowList& list = pending.list;
  const bool narrow = pending.narrow <= pending.wide;
  if (pending.windows > 0 && list.count == 0) {
    coded_window_attention(pending.attention);
  } else if (pending.windows > 0) {
    const WindowList both{attention_tiles(pending.attention), list};
    if (both.attention.end > pending.shared) pending.shared = both.attention.end;
    launch_list(pending.width == 4
                    ? (narrow ? window_segment_kernel<4, 6> : window_segment_kernel<4, 8>)
                    : (narrow ? window_segment_kernel<8, 6> : window_segment_kernel<8, 8>),
                pending.windows, both);
  } else if (list.count > 0) {
    launch_list(pending.width == 4 ? (narrow ? segment_kernel<4, 6> : segment_kernel<4, 8>)
                                   : (narrow ? segment_kernel<8, 6> : segment_kernel<8, 8>),
                divide_up(list.rows, kSegmentRows), list);
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

// Begins anew: its tokens are the rows of a window, and so are those of the calls behind it.
void join(const CodedWindowAttention& a) {
  const bool joins = a.batch * a.height * a.width == pending.list.rows &&
                     a.window * a.window <= kMostMapped && attends_window(a);
  if (!joins) return alone<CodedWindowAttention, coded_window_attention>(a);
  launch_pending();
  pending.attention = a;
  pending.windows = pending.list.rows / (a.window * a.window);
}

// Its tables have to outlive the op, and with them the launch.
void join(const FusedCodedDepthwiseConv& a) {
  const CodedDepthwiseConv convolution = a.convolution({nullptr, 0});
  const bool joins = a.batch * a.height * a.width == pending.list.rows &&
                     in_fours(a.channels, a.x.data, a.factor.data, a.codes.data) &&
                     keeps_tables(convolution);
  if (!joins) return alone<FusedCodedDepthwiseConv, fused_coded_depthwise_conv>(a);
  Scratch scratch;
  const DepthwiseCall call{depthwise_of(scratch, convolution), gated_codes_of(a),
                           static_cast<int>(a.kernel)};
  next(kDepthwise, a.channels / 4).depthwise = call;
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

// Ops that count elements; one runs by itself where rows do not divide them.
template <class Args, void (*op)(const Args&), class Body>
void join_elements(const Args& a, RowOp kind, Body RowCall::*member, const Body& body) {
  const int64_t rows = pending.list.rows, columns = a.n / rows;
  const bool joins = columns > 0 && columns * rows == a.n && columns < kMostColumns;
  if (!joins) return alone<Args, op>(a);
  next(kind, columns).*member = body;
}
void join(const Gelu& a) { join_elements<Gelu, gelu>(a, kGelu, &RowCall::gelu, {a}); }
void join(const SigmoidGate& a) {
  join_elements<SigmoidGate, sigmoid_gate>(a, kSigmoidGate, &RowCall::gate, {a});
}
void join(const Multiply& a) {
  join_elements<Multiply, multiply>(a, kMultiply, &RowCall::multiply, {a});
}
void join(const Add& a) { join_elements<Add, add>(a, kAdd, &RowCall::add, {a}); }
void join(const Scale& a) {
  join_elements<Scale, scale>(a, kScale, &RowCall::scale, {a, static_cast<float>(a.factor)});
}

Backend joining() {
  Backend table = {
      kBackendAbiVersion, "cuda, in segments",
#define SPR2Q_ENTRY(op, Args) alone<Args, op>,
      SPR2Q_OPS(SPR2Q_ENTRY)
#undef SPR2Q_ENTRY
  };
  table.fused_coded_linear = join;
  table.coded_window_attention = join;
  table.fused_coded_depthwise_conv = join;
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
