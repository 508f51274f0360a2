// A frozen network: a list of op calls over one arena and a set of constants, replayed natively
// without JavaScript. The list comes from a tracing graph (lib/infer/encode.ts), which also decides
// which bytes each value occupies; checks run once, when the plan is made.
//
// core/plan_code.hpp has the encoding of one call.
//
// A segment is -1, number of calls, rows, rows of a tile, bytes of a tile, number of exports, then
// its exports and its calls. Its calls work on each row by itself, so a thread takes a tile of rows
// through all of them before the next tile: views with `row` > 0 elements a row are narrowed to the
// tile's rows, the row count's entry is the count per row, and place -2 is memory of the thread.
// An export (offset in the tile, offset in the arena, bytes a row) is a value that goes from the tile
// to the arena past the caches when the tile is done.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "../core/backend.hpp"
#include "../core/constants.hpp"
#include "../core/plan_code.hpp"

namespace spr2q {

// What a run asks and tells while it goes.
class RunWatch {
 public:
  virtual ~RunWatch() = default;
  // True where the run should end. Asked between steps, and by every thread between the tiles of one.
  virtual bool stopped() const = 0;
  // `done` of the plan's steps are done. Called by the thread that runs the plan.
  virtual void step_done(int64_t done) = 0;
};

// How a run ended: finished, stopped, or with a problem and its code of lib/errors.ts.
struct RunResult {
  bool finished = true;
  const char* code = nullptr;  // null where there was no problem
  std::string problem = {};
};

class Plan {
 public:
  // The plan runs on `backend`, which packed its constants; their contents become shared constants
  // of the process. Returns an empty string, or what is wrong with the list.
  std::string build(const Backend& backend, const double* code, int64_t length,
                    const std::vector<Block>& constants, int64_t arena_bytes,
                    int64_t input_floats, int64_t output_floats);

  // Runs every call, or until `watch` says stopped. The plan may run on several threads at once:
  // each run has an arena of its own. watch may be null. `seconds`, where not null, gets the wall
  // time of each call or segment, in list order. `noise_tile` is added to the tile of every route,
  // so one plan serves all tiles of its size.
  RunResult run(const float* input, float* output, RunWatch* watch, double* seconds,
                int64_t noise_tile) const;

  // Calls outside segments, and segments.
  int64_t steps() const { return steps_; }
  int64_t arena_bytes() const { return arena_bytes_; }
  int64_t input_floats() const { return input_floats_; }
  int64_t output_floats() const { return output_floats_; }
  // Of code and constants; shared ones are counted by every plan that names them.
  int64_t held_bytes() const;

 private:
  bool keep(const std::vector<Block>& constants);

  const Backend* backend_ = nullptr;
  std::vector<double> code_;
  std::vector<Block> constants_;
  std::vector<std::shared_ptr<const Constant>> shared_;  // what constants_ points into
  int64_t arena_bytes_ = 0;
  int64_t input_floats_ = 0;
  int64_t output_floats_ = 0;
  int64_t steps_ = 0;
};

}  // namespace spr2q
