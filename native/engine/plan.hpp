// A frozen network: a list of op calls over one arena and a set of constants, replayed natively
// without JavaScript. The list comes from a tracing graph (lib/infer/plan.ts), which also decides
// which arena bytes each value occupies; checks run once, when the plan is made.
//
// Encoding of one call: op index, then one entry per field of its struct: a number as itself, a
// view as (place, offset, size): place -1 absent, 0 arena, 1 input, 2 output, 3+k constant k; offset
// in bytes; size in elements.
#pragma once
#include <string>
#include <vector>

#include "../core/backend.hpp"

namespace spr2q {

struct Block {
  uint8_t* data;
  int64_t bytes;
};

class Plan {
 public:
  // Returns an empty string, or what is wrong with the list.
  std::string build(const double* code, int64_t length, const std::vector<Block>& constants,
                    int64_t arena_bytes, int64_t input_floats, int64_t output_floats);

  // Runs every call. `cancel` is polled between calls; returns false where it was set. The plan
  // may run on several threads at once: each run has an arena of its own. cancel may be null.
  bool run(const Backend& backend, const float* input, float* output,
           const volatile int32_t* cancel, std::string& problem) const;

  int64_t arena_bytes() const { return arena_bytes_; }
  int64_t input_floats() const { return input_floats_; }
  int64_t output_floats() const { return output_floats_; }

 private:
  std::vector<double> code_;
  std::vector<Block> constants_;
  int64_t arena_bytes_ = 0;
  int64_t input_floats_ = 0;
  int64_t output_floats_ = 0;
};

}  // namespace spr2q
