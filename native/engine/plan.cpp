// See plan.hpp for the encoding.
#include "plan.hpp"

#include <cstdlib>

namespace spr2q {
namespace {

struct Places {
  Block arena, input, output;
  const std::vector<Block>* constants;
};

// Fills an argument struct from the encoded fields, in the struct's order.
class CodeReader {
 public:
  CodeReader(const double* code, const double* end, const Places& places)
      : code_(code), end_(end), places_(places) {}

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
  void read(int64_t& number) { number = static_cast<int64_t>(next()); }
  void read(double& number) { number = next(); }
  void read(F32& view) { view_of(view.data, view.size); }
  void read(U8& view) { view_of(view.data, view.size); }
  void read(I32& view) { view_of(view.data, view.size); }

  template <class T>
  void view_of(T*& data, int64_t& size) {
    const int64_t place = static_cast<int64_t>(next());
    const int64_t offset = static_cast<int64_t>(next());
    size = static_cast<int64_t>(next());
    data = nullptr;
    if (place < 0) {
      size = 0;
      return;
    }
    const int64_t constant = place - 3;
    if (constant >= static_cast<int64_t>(places_.constants->size())) {
      problem_ = "a view names a constant that is not there";
      return;
    }
    const Block& block = place == 0   ? places_.arena
                         : place == 1 ? places_.input
                         : place == 2 ? places_.output
                                      : (*places_.constants)[static_cast<size_t>(constant)];
    if (offset < 0 || size < 0 || size > block.bytes ||
        offset + size * static_cast<int64_t>(sizeof(T)) > block.bytes) {
      problem_ = "a view reaches outside its block";
      return;
    }
    data = reinterpret_cast<T*>(block.data + offset);
  }

  const double* code_;
  const double* end_;
  const Places& places_;
  const char* problem_ = nullptr;
};

// Decodes one call; checks it (backend == nullptr) or runs it. Returns the next call's position.
template <class Args>
const double* step(const double* code, const double* end, const Places& places,
                   void (*op)(const Args&), const char*& problem) {
  Args args;
  CodeReader reader(code, end, places);
  args.visit(reader);
  problem = reader.problem();
  if (!problem && !op) problem = args.check();
  if (!problem && op) op(args);
  return reader.position();
}

const double* dispatch(const Backend* backend, const double* code, const double* end,
                       const Places& places, const char*& problem, const char*& name) {
  int64_t index = 0;
  const int64_t wanted = static_cast<int64_t>(*code);
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

}  // namespace

std::string Plan::build(const double* code, int64_t length, const std::vector<Block>& constants,
                        int64_t arena_bytes, int64_t input_floats, int64_t output_floats) {
  code_.assign(code, code + length);
  constants_ = constants;
  arena_bytes_ = arena_bytes;
  input_floats_ = input_floats;
  output_floats_ = output_floats;
  if (arena_bytes < 0 || input_floats < 0 || output_floats < 0) return "negative size";
  // Addresses are not touched while checking: any non-null base will do.
  uint8_t* base = reinterpret_cast<uint8_t*>(4096);
  const Places places = {{base, arena_bytes},
                         {base, input_floats * 4},
                         {base, output_floats * 4},
                         &constants_};
  const double* end = code_.data() + code_.size();
  for (const double* at = code_.data(); at < end;) {
    const char* problem = nullptr;
    const char* name = "plan";
    at = dispatch(nullptr, at, end, places, problem, name);
    if (problem) return std::string(name) + ": " + problem;
  }
  return "";
}

bool Plan::run(const Backend& backend, const float* input, float* output,
               const volatile int32_t* cancel, std::string& problem) const {
  uint8_t* arena = static_cast<uint8_t*>(
      std::aligned_alloc(64, static_cast<size_t>((arena_bytes_ + 127) / 64 * 64)));
  if (!arena) {
    problem = "no memory for an arena of " + std::to_string(arena_bytes_) + " bytes";
    return true;
  }
  const Places places = {
      {arena, arena_bytes_},
      {reinterpret_cast<uint8_t*>(const_cast<float*>(input)), input_floats_ * 4},
      {reinterpret_cast<uint8_t*>(output), output_floats_ * 4},
      &constants_};
  const double* end = code_.data() + code_.size();
  bool finished = true;
  for (const double* at = code_.data(); at < end && problem.empty();) {
    if (cancel && *cancel) {
      finished = false;
      break;
    }
    const char* trouble = nullptr;
    const char* name = "plan";
    at = dispatch(&backend, at, end, places, trouble, name);
    if (trouble) problem = std::string(name) + ": " + trouble;
  }
  std::free(arena);
  return finished;
}

}  // namespace spr2q
