// The list of op calls that a frozen network consists of (lib/infer/encode.ts makes it), decoded one
// call at a time: by engine/plan.cpp on the CPU, by cuda/plan.cu on the GPU.
//
// Encoding of one call: op index, position of its row count and of its first row (-1: none), then
// one entry per field of its struct: a number as itself, a view as (place, offset, size, row): place
// -2 tile, -1 absent, 0 arena, 1 input, 2 output, 3+k constant k; offset in bytes; size in elements.
//
#pragma once
#include <cstring>
#include <type_traits>
#include <vector>

#include "backend.hpp"

namespace spr2q {

constexpr double kMostWholeCode = 9007199254740992.0;  // 2^53

struct Block {
  uint8_t* data;
  int64_t bytes;
};

// True where `value` is a whole number in [least, most], the only ones that become integers here.
static inline bool is_whole(double value, double least, double most) {
  return value >= least && value <= most && value == static_cast<double>(static_cast<int64_t>(value));
}

// a * b, or -1 where 64 bits do not hold it; neither is negative.
static inline int64_t times(int64_t a, int64_t b) {
  int64_t product = 0;
  return __builtin_mul_overflow(a, b, &product) ? -1 : product;
}

constexpr double kSegment = -1;  // in the place of an op index: a segment begins (engine/plan.hpp)
constexpr double kMostTileBytes = 1 << 28;  // a thread keeps them; plans use a few hundred kilobytes

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
    if (!is_whole(code[1], 1, kMostWholeCode) || !is_whole(code[2], 1, bytes) ||
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
    if (is_whole(value, -kMostWholeCode, kMostWholeCode)) return static_cast<int64_t>(value);
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
  // Ops over many tensors belong to training; no call of a plan has lists.
  void read(F32List& list) { refuse(list); }
  void read(U8List& list) { refuse(list); }
  void read(Numbers& list) { refuse(list); }
  template <class List>
  void refuse(List& list) {
    list = {nullptr, 0};
    problem_ = "an op over lists of tensors has no place in a plan";
  }

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
static inline const double* step(const double* code, const double* end, const Places& places,
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

static inline const double* dispatch(const Backend* backend, const double* code, const double* end,
                       const Places& places, const char*& problem, const char*& name) {
  int64_t index = 0;
  const int64_t wanted = is_whole(*code, 0, kMostWholeCode) ? static_cast<int64_t>(*code) : -1;
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

}  // namespace spr2q
