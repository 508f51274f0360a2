// See plan.hpp for the encoding.
#include "plan.hpp"

#include <atomic>
#include <chrono>
#include <cstring>

#include "../core/arena.hpp"
#include "../core/plan_code.hpp"
#include "../core/pool.hpp"
#include "../core/stream.hpp"

namespace spr2q {
namespace {

constexpr int64_t kMostBytes = 1ll << 46;  // of an arena: more than processors address
constexpr int64_t kTileSlot = 15;       // of the thread's scratch; kernels use the slots below
constexpr int64_t kTilesPerThread = 4;  // at least, so that no thread waits long for the last one
constexpr int64_t kLeastTileRows = 48;

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
    return {false, "ERR_OUT_OF_MEMORY",
            "no memory for an arena of " + std::to_string(arena_bytes_) + " bytes"};
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
    if (watch && watch->stopped()) return {false};
    const char *trouble = nullptr, *name = "plan";
    if (*at == kSegment) {
      trouble = run_segment(*backend_, at, end, places, watch);
      at = skip_segment(at, end, places);
    } else {
      at = dispatch(backend_, at, end, places, trouble, name);
    }
    if (trouble) return {false, "ERR_ARGUMENT", trouble};
    if (watch) watch->step_done(++done);
    if (!seconds) continue;
    const Clock::time_point now = Clock::now();
    *seconds++ = std::chrono::duration<double>(now - began).count();
    began = now;
  }
  // A stop during the last step left tiles of it out.
  return {!(watch && watch->stopped())};
}

}  // namespace spr2q
