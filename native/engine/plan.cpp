// See plan.hpp for the encoding.
#include "plan.hpp"

#include <atomic>
#include <chrono>
#include <cstring>
#include <type_traits>

#include "../core/arena.hpp"
#include "../core/pool.hpp"
#include "../core/stream.hpp"

namespace spr2q {
namespace {

constexpr double kSegment = -1;
constexpr double kMostWhole = 9007199254740992.0;  // 2^53
constexpr int64_t kMostBytes = 1ll << 46;           // of an arena: more than processors address
constexpr int64_t kTileSlot = 15;       // of the thread's scratch; kernels use the slots below
constexpr int64_t kTilesPerThread = 4;  // at least, so that no thread waits long for the last one
constexpr int64_t kLeastTileRows = 48;
constexpr double kMostTileBytes = 1 << 28;  // a thread keeps them; plans use a few hundred kilobytes

// True where `value` is a whole number in [least, most], the only ones that become integers here.
bool is_whole(double value, double least, double most) {
  return value >= least && value <= most && value == static_cast<double>(static_cast<int64_t>(value));
}

// a * b, or -1 where 64 bits do not hold it; neither is negative.
int64_t times(int64_t a, int64_t b) {
  int64_t product = 0;
  return __builtin_mul_overflow(a, b, &product) ? -1 : product;
}

struct Places {
  Block arena, input, output, tile;
  const std::vector<Block>* constants;
  int64_t first_row, rows;  // of the tile
  int64_t noise_tile;       // of the run: added to that of every route
  bool made = true;         // false while the plan is made: sizes are then asked for their product
};

// Fills an argument struct from the encoded fields, in the struct's order.
class CodeReader {
 public:
  CodeReader(const double* code, const double* end, const Places& places)
      : code_(code), end_(end), places_(places) {
    count_field_ = whole();
    first_field_ = whole();
  }

  template <class... Fields>
  void fields(const char*, Fields&... fields) {
    (read(fields), ...);
  }

  const double* position() const { return code_; }
  const char* problem() const { return problem_; }

 private:
  double next() {
    if (code_ >= end_) {
      problem_ = "the list of calls ends inside a call";
      return 0;
    }
    return *code_++;
  }
  // An entry that is a whole number; sums and products with bytes a value then cannot overflow.
  int64_t whole() {
    const double value = next();
    if (is_whole(value, -kMostWhole, kMostWhole)) return static_cast<int64_t>(value);
    problem_ = "an entry is no whole number";
    return 0;
  }
  void read(int64_t& number) {
    number = whole();
    if (field_ == count_field_ && __builtin_mul_overflow(number, places_.rows, &number)) {
      problem_ = SizeProduct::kProblem;
    }
    if (field_ == first_field_) number += places_.first_row;
    ++field_;
  }
  void read(double& number) {
    number = next();
    ++field_;
  }
  void read(F32& view) { view_of(view.data, view.size); }
  void read(U8& view) { view_of(view.data, view.size); }
  void read(I32& view) { view_of(view.data, view.size); }

  template <class T>
  void view_of(T*& data, int64_t& size) {
    ++field_;
    const int64_t place = whole();
    int64_t offset = whole();
    size = whole();
    const int64_t row = whole();
    data = nullptr;
    if (place == -1) {
      size = 0;
      return;
    }
    const int64_t constant = place - 3;
    if (place < -2 || row < 0 || constant >= static_cast<int64_t>(places_.constants->size())) {
      problem_ = "a view names a constant that is not there";
      return;
    }
    const Block& block = place == -2  ? places_.tile
                         : place == 0 ? places_.arena
                         : place == 1 ? places_.input
                         : place == 2 ? places_.output
                                      : (*places_.constants)[static_cast<size_t>(constant)];
    if (row > block.bytes) {
      problem_ = "a view reaches outside its block";
      return;
    }
    if (row > 0) {
      const int64_t before = times(places_.first_row, row * static_cast<int64_t>(sizeof(T)));
      if (place != -2) offset = before < 0 || offset < 0 || offset > block.bytes ? -1 : offset + before;
      size = times(row, places_.rows);
    }
    if (offset % static_cast<int64_t>(sizeof(T))) {
      problem_ = "a view begins between two of its elements";
      return;
    }
    if (offset < 0 || size < 0 || offset > block.bytes ||
        size > (block.bytes - offset) / static_cast<int64_t>(sizeof(T))) {
      problem_ = "a view reaches outside its block";
      return;
    }
    data = reinterpret_cast<T*>(block.data + offset);
  }

  const double* code_;
  const double* end_;
  const Places& places_;
  int64_t count_field_ = -1, first_field_ = -1, field_ = 0;
  const char* problem_ = nullptr;
};

// Decodes one call and checks it, again where it runs: the rows of a tile are known only then.
// op == nullptr: it is not run. Returns the next call's position.
template <class Args>
const double* step(const double* code, const double* end, const Places& places,
                   void (*op)(const Args&), const char*& problem) {
  Args args;
  CodeReader reader(code, end, places);
  args.visit(reader);
  if constexpr (std::is_same_v<Args, Route>) args.tile += places.noise_tile;
  problem = reader.problem();
  if (!problem && !places.made) {
    SizeProduct product;
    args.visit(product);
    if (product.too_large()) problem = SizeProduct::kProblem;
  }
  if (!problem) problem = args.check();
  if (!problem && op) op(args);
  return reader.position();
}

const double* dispatch(const Backend* backend, const double* code, const double* end,
                       const Places& places, const char*& problem, const char*& name) {
  int64_t index = 0;
  const int64_t wanted = is_whole(*code, 0, kMostWhole) ? static_cast<int64_t>(*code) : -1;
#define SPR2Q_STEP(op, Args)                                                              \
  if (wanted == index++) {                                                                \
    name = #op;                                                                           \
    return step<Args>(code + 1, end, places, backend ? backend->op : nullptr, problem);   \
  }
  SPR2Q_OPS(SPR2Q_STEP)
#undef SPR2Q_STEP
  problem = "unknown op index";
  return end;
}

// Head of a segment.
struct Segment {
  int64_t calls, rows, tile_rows, tile_bytes, exports;
  const double* first_export;
  static constexpr int64_t kEntries = 6, kExportEntries = 3;
  explicit Segment(const double* code)
      : calls(static_cast<int64_t>(code[1])), rows(static_cast<int64_t>(code[2])),
        tile_rows(static_cast<int64_t>(code[3])), tile_bytes(static_cast<int64_t>(code[4])),
        exports(static_cast<int64_t>(code[5])), first_export(code + kEntries) {}
  const double* body() const { return first_export + exports * kExportEntries; }

  // What is wrong with the head of a segment at `code`, or null: asked before one is made of it.
  // Every row is at least a byte of the `bytes` that the plan works on.
  static const char* check(const double* code, const double* end, double bytes, double arena_bytes) {
    if (end - code < kEntries) return "the list of calls ends inside a segment";
    if (!is_whole(code[1], 1, kMostWhole) || !is_whole(code[2], 1, bytes) ||
        !is_whole(code[3], 1, code[2]) || !is_whole(code[4], 0, kMostTileBytes)) {
      return "a segment needs calls, rows and tiles of at most all rows";
    }
    if (!is_whole(code[5], 0, static_cast<double>((end - code - kEntries) / kExportEntries))) {
      return "the list of calls ends inside a segment";
    }
    const Segment segment(code);
    const double rows = code[2], tile_rows = code[3], tile_bytes = code[4];
    for (const double* e = segment.first_export; e < segment.body(); e += kExportEntries) {
      const bool inside =  // false where an entry is not a number
          is_whole(e[0], 0, tile_bytes) && is_whole(e[1], 0, arena_bytes) &&
          is_whole(e[2], 1, tile_bytes) && e[0] + e[2] * tile_rows <= tile_bytes &&
          e[1] + e[2] * rows <= arena_bytes;
      if (!inside) return "an export reaches outside its block";
    }
    return nullptr;
  }
};

// Behind the calls of one tile (backend == nullptr: checked, not run).
const double* run_tile(const Backend* backend, const double* code, const double* end,
                       int64_t calls, const Places& places, const char*& problem,
                       const char*& name) {
  for (int64_t i = 0; i < calls && code < end && !problem; ++i) {
    code = dispatch(backend, code, end, places, problem, name);
  }
  return code;
}

// Rows of a tile: fewer than planned where the image is too small to keep all threads busy.
int64_t tile_rows_for(const Segment& segment) {
  const int64_t tiles = kTilesPerThread * thread_count();
  const int64_t even = (segment.rows + tiles - 1) / tiles;
  const int64_t least = even > kLeastTileRows ? even : kLeastTileRows;
  return least < segment.tile_rows ? least : segment.tile_rows;
}

// Returns what is wrong with a call of it in some tile, or null.
const char* run_segment(const Backend& backend, const double* code, const double* end, Places places,
                        const RunWatch* watch) {
  const Segment segment(code);
  std::atomic<const char*> trouble{nullptr};
  parallel_for(segment.rows, tile_rows_for(segment), [&](int64_t begin, int64_t finish) {
    if (watch && watch->stopped()) return;
    Places mine = places;
    mine.tile = {scratch<uint8_t>(kTileSlot, segment.tile_bytes + 64), segment.tile_bytes};
    mine.first_row = begin;
    mine.rows = finish - begin;
    const char *problem = nullptr, *name = nullptr;
    run_tile(&backend, segment.body(), end, segment.calls, mine, problem, name);
    if (problem) {
      trouble = problem;
      return;
    }
    for (const double* e = segment.first_export; e < segment.body(); e += Segment::kExportEntries) {
      const int64_t row_bytes = static_cast<int64_t>(e[2]);
      stream(places.arena.data + static_cast<int64_t>(e[1]) + begin * row_bytes,
             mine.tile.data + static_cast<int64_t>(e[0]), (finish - begin) * row_bytes);
    }
    if (segment.exports) stream_fence();
  });
  return trouble;
}

// The code behind the step at `at`, whose calls have been checked before.
const double* skip_segment(const double* at, const double* end, const Places& places) {
  const Segment segment(at);
  Places last = places;
  last.tile = {places.arena.data, segment.tile_bytes};
  last.rows = segment.tile_rows;
  const char *problem = nullptr, *name = nullptr;
  return run_tile(nullptr, segment.body(), end, segment.calls, last, problem, name);
}

}  // namespace

std::string Plan::build(const Backend& backend, const double* code, int64_t length,
                        const std::vector<Block>& constants, int64_t arena_bytes,
                        int64_t input_floats, int64_t output_floats) {
  backend_ = &backend;
  code_.assign(code, code + length);
  if (!keep(constants)) return "no memory for its constants";
  arena_bytes_ = arena_bytes;
  input_floats_ = input_floats;
  output_floats_ = output_floats;
  for (int64_t size : {arena_bytes, input_floats, output_floats}) {
    if (size < 0 || size > kMostBytes) return "a size is negative or beyond 2^46";
  }
  const double bytes = static_cast<double>(arena_bytes + 4 * (input_floats + output_floats));
  // Addresses are not touched while checking: any non-null base will do.
  uint8_t* base = reinterpret_cast<uint8_t*>(4096);
  const double* end = code_.data() + code_.size();
  for (const double* at = code_.data(); at < end; ++steps_) {
    const char *problem = nullptr, *name = "plan";
    Places places = {{base, arena_bytes}, {base, input_floats * 4}, {base, output_floats * 4},
                     {base, 0}, &constants_, 0, 0, 0, false};
    if (*at != kSegment) {
      at = dispatch(nullptr, at, end, places, problem, name);
    } else if (!(problem = Segment::check(at, end, bytes, static_cast<double>(arena_bytes)))) {
      const Segment segment(at);
      // The first tile and the last: what lies between reaches no farther.
      places.tile.bytes = segment.tile_bytes;
      places.rows = segment.tile_rows;
      run_tile(nullptr, segment.body(), end, segment.calls, places, problem, name);
      places.first_row = segment.rows - segment.tile_rows;
      if (!problem) {
        at = run_tile(nullptr, segment.body(), end, segment.calls, places, problem, name);
      }
    }
    if (problem) return std::string(name) + ": " + problem;
  }
  return "";
}

// Constants smaller than a page share one block: most are a few bounds.
bool Plan::keep(const std::vector<Block>& constants) {
  constexpr int64_t kSmall = 4096, kLine = 64;
  constants_ = constants;
  std::vector<uint8_t> small;
  std::vector<size_t> places;
  for (Block& block : constants_) {
    places.push_back(small.size());
    if (block.bytes >= kSmall) {
      shared_.push_back(share_constant(block.data, block.bytes));
      if (!shared_.back()) return false;
      block.data = const_cast<uint8_t*>(shared_.back()->data);
    } else {
      small.insert(small.end(), block.data, block.data + block.bytes);
      small.resize((small.size() + kLine - 1) / kLine * kLine);
    }
  }
  shared_.push_back(share_constant(small.data(), static_cast<int64_t>(small.size())));
  if (!shared_.back()) return false;
  for (size_t i = 0; i < constants_.size(); ++i) {
    if (constants_[i].bytes >= kSmall) continue;
    constants_[i].data = const_cast<uint8_t*>(shared_.back()->data) + places[i];
  }
  return true;
}

int64_t Plan::held_bytes() const {
  int64_t bytes = static_cast<int64_t>(code_.size() * sizeof(double));
  for (const auto& constant : shared_) bytes += constant->bytes;
  return bytes;
}

RunResult Plan::run(const float* input, float* output, RunWatch* watch, double* seconds,
                    int64_t noise_tile) const {
  const Arena arena(arena_bytes_);
  if (!arena.data()) {
    return {false, "no memory for an arena of " + std::to_string(arena_bytes_) + " bytes"};
  }
  const Places places = {
      {arena.data(), arena_bytes_},
      {reinterpret_cast<uint8_t*>(const_cast<float*>(input)), input_floats_ * 4},
      {reinterpret_cast<uint8_t*>(output), output_floats_ * 4},
      {nullptr, 0}, &constants_, 0, 0, noise_tile};
  const double* end = code_.data() + code_.size();
  using Clock = std::chrono::steady_clock;
  Clock::time_point began = Clock::now();
  int64_t done = 0;
  for (const double* at = code_.data(); at < end;) {
    if (watch && watch->stopped()) return {false, ""};
    const char *trouble = nullptr, *name = "plan";
    if (*at == kSegment) {
      trouble = run_segment(*backend_, at, end, places, watch);
      at = skip_segment(at, end, places);
    } else {
      at = dispatch(backend_, at, end, places, trouble, name);
    }
    if (trouble) return {false, trouble, true};
    if (watch) watch->step_done(++done);
    if (!seconds) continue;
    const Clock::time_point now = Clock::now();
    *seconds++ = std::chrono::duration<double>(now - began).count();
    began = now;
  }
  // A stop during the last step left tiles of it out.
  return {!(watch && watch->stopped()), ""};
}

}  // namespace spr2q
