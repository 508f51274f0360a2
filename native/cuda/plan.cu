// A frozen network on the GPU: the list of op calls of core/plan_code.hpp over an arena in device
// memory, its constants uploaded once for all plans that share them, recorded into a graph when it
// first runs and replayed from then on. The number of the tile in the noise of sampled routes is not
// part of the recording: the route kernel reads it from a cell that every run writes first.
// A plan has a stream, buffers and a lock of its own; runs from several threads follow each other.
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include "../core/plan_code.hpp"
#include "device.cuh"
#include "segment.hpp"

namespace spr2q {
namespace cuda {
namespace {

constexpr int kMostRecordings = 4;  // one run sizes the scratch; a block that grew may have to again

__global__ void set_cell_kernel(int64_t* cell, int64_t value) {
  if (threadIdx.x == 0) *cell = value;
}

// A constant in device memory, shared by all plans whose constants have its contents: plans of one
// model for several sizes of tiles upload its weights once.
struct DeviceConstant {
  void* data = nullptr;
  ~DeviceConstant() {
    if (data) services().release(data);
  }
};

// What tells contents apart: their length and two hashes of 64 bits.
struct Contents {
  int64_t bytes;
  uint64_t first, second;
  bool operator<(const Contents& other) const {
    return std::tie(bytes, first, second) < std::tie(other.bytes, other.first, other.second);
  }
};

Contents contents_of(const CudaHostBlock& block) {
  Contents result = {block.bytes, 0xcbf29ce484222325u, 0x9e3779b97f4a7c15u};
  const unsigned char* data = static_cast<const unsigned char*>(block.data);
  for (int64_t i = 0; i < block.bytes; ++i) {
    result.first = (result.first ^ data[i]) * 0x100000001b3u;  // FNV-1a
    result.second = (result.second + data[i]) * 0xbf58476d1ce4e5b9u;
    result.second ^= result.second >> 29;
  }
  return result;
}

std::mutex constants_mutex;

// Never destroyed: plans may still let go of theirs while the process exits.
std::map<Contents, std::weak_ptr<DeviceConstant>>& known_constants() {
  static auto* instance = new std::map<Contents, std::weak_ptr<DeviceConstant>>();
  return *instance;
}

// The constant with the block's contents: one that is there, or else a copy. Null after a failure.
std::shared_ptr<DeviceConstant> shared_constant(const CudaHostBlock& block) {
  const std::lock_guard<std::mutex> lock(constants_mutex);
  for (auto at = known_constants().begin(); at != known_constants().end();) {
    at = at->second.expired() ? known_constants().erase(at) : std::next(at);
  }
  std::weak_ptr<DeviceConstant>& known = known_constants()[contents_of(block)];
  if (auto found = known.lock()) return found;
  auto made = std::make_shared<DeviceConstant>();
  if (services().allocate(&made->data, block.bytes) != kCudaOk) return nullptr;
  if (block.bytes > 0 && services().copy_in(made->data, block.data, block.bytes) != kCudaOk) {
    return nullptr;
  }
  known = made;
  return made;
}

struct Plan {
  std::vector<double> code;
  std::vector<std::shared_ptr<DeviceConstant>> shared;  // what `constants` points into
  std::vector<Block> constants;
  int64_t arena_bytes = 0, input_bytes = 0, output_bytes = 0;
  std::vector<void*> owned;  // device memory
  uint8_t *arena = nullptr, *input = nullptr, *output = nullptr;
  int64_t* noise_tile = nullptr;
  KeptBlocks kept;
  void *stream = nullptr, *graph = nullptr, *finished = nullptr;
  std::mutex running;

  Places places() {
    return {{arena, arena_bytes}, {input, input_bytes}, {output, output_bytes},
            {arena, 0}, &constants, 0, 0, 0};
  }
};

// The stream in use, put back at the end.
class OnStream {
 public:
  explicit OnStream(void* stream) : before_(current_stream()) { services().use_stream(stream); }
  ~OnStream() { services().use_stream(before_); }
  OnStream(const OnStream&) = delete;
  OnStream& operator=(const OnStream&) = delete;

 private:
  void* before_;
};

int32_t failure_code() {
  const int32_t code = pending_failure();
  return code == kCudaOk ? kCudaLaunchFailed : code;
}

// The calls of the segment at `at`, all of whose rows are one tile here, in a kernel of their own.
// Returns the position behind it.
const double* walk_segment(bool running, const double* at, const double* end, Places places,
                           const char*& problem, const char*& name) {
  const double arena = static_cast<double>(places.arena.bytes);
  const double bytes = arena + static_cast<double>(places.input.bytes + places.output.bytes);
  problem = Segment::check(at, end, bytes, arena);
  if (problem) return end;
  const Segment segment(at);
  at = segment.body();
  places.rows = segment.rows;
  if (running) begin_segment(segment.rows);
  for (int64_t i = 0; i < segment.calls && !problem; ++i) {
    if (at >= end) problem = "the list of calls ends inside a segment";
    else at = dispatch(running ? joining_backend() : nullptr, at, end, places, problem, name);
  }
  if (running) end_segment();
  return at;
}

// Every call of the list, run or only checked. What is wrong with it, or empty.
std::string walk(Plan& plan, bool running) {
  Places places = plan.places();
  places.made = running;
  const double* end = plan.code.data() + plan.code.size();
  for (const double* at = plan.code.data(); at < end;) {
    const char *problem = nullptr, *name = "plan";
    at = *at == kSegment
             ? walk_segment(running, at, end, places, problem, name)
             : dispatch(running ? module_backend() : nullptr, at, end, places, problem, name);
    if (problem) return std::string(name) + ": " + problem;
  }
  return "";
}

void* reserve(Plan& plan, int64_t bytes) {
  void* data = nullptr;
  if (services().allocate(&data, bytes) == kCudaOk) plan.owned.push_back(data);
  return data;
}

int32_t upload_constants(Plan& plan, const CudaPlanDescription& d) {
  for (int64_t i = 0; i < d.constant_count; ++i) {
    std::shared_ptr<DeviceConstant> constant = shared_constant(d.constants[i]);
    if (!constant) return failure_code();
    plan.constants.push_back({static_cast<uint8_t*>(constant->data), d.constants[i].bytes});
    plan.shared.push_back(std::move(constant));
  }
  return kCudaOk;
}

int32_t reserve_memory(Plan& plan, const CudaPlanDescription& d) {
  plan.arena_bytes = d.arena_bytes;
  plan.input_bytes = d.input_floats * static_cast<int64_t>(sizeof(float));
  plan.output_bytes = d.output_floats * static_cast<int64_t>(sizeof(float));
  plan.arena = static_cast<uint8_t*>(reserve(plan, plan.arena_bytes));
  plan.input = static_cast<uint8_t*>(reserve(plan, plan.input_bytes));
  plan.output = static_cast<uint8_t*>(reserve(plan, plan.output_bytes));
  plan.noise_tile = static_cast<int64_t*>(reserve(plan, sizeof(int64_t)));
  if (!plan.arena || !plan.input || !plan.output || !plan.noise_tile) return failure_code();
  int32_t code = services().stream_create(&plan.stream);
  if (code == kCudaOk) code = services().event_create(&plan.finished);
  return code;
}

void run_list(Plan& plan) {
  use_noise_cell(plan.noise_tile);
  use_kept_blocks(&plan.kept);
  walk(plan, true);
  use_kept_blocks(nullptr);
  use_noise_cell(nullptr);
}

void release_kept(Plan& plan) {
  for (void* data : plan.kept.blocks) services().release(data);
  plan.kept.blocks.clear();
  plan.kept.made = false;
}

// Runs the list once on the plan's stream, which also sizes the scratch of its ops and makes what
// they make of constants.
int32_t run_unrecorded(Plan& plan) {
  run_list(plan);
  const int32_t code = failed() ? failure_code() : services().synchronize();
  if (code == kCudaOk) plan.kept.made = true;
  else release_kept(plan);
  return code;
}

// The graph of the list. A run before each attempt sizes the scratch: recording cannot.
int32_t record(Plan& plan) {
  for (int attempt = 0; attempt < kMostRecordings; ++attempt) {
    int32_t code = run_unrecorded(plan);
    if (code != kCudaOk) return code;
    code = services().capture_begin();
    if (code != kCudaOk) return code;
    run_list(plan);
    const int32_t trouble = pending_failure();
    if (trouble == kCudaOk) return services().capture_end(&plan.graph);
    const char* text = "";
    void* partial = nullptr;
    if (trouble == kCudaScratchInCapture) services().last_error(&text);
    services().capture_end(&partial);
    if (partial) services().graph_destroy(partial);
    if (trouble != kCudaScratchInCapture) return trouble;
  }
  fail(kCudaScratchInCapture, "a plan's scratch grows with every run");
  return kCudaScratchInCapture;
}

// The plan ready to be replayed on the stream in use, with the tile's number set.
int32_t prepare(Plan& plan, int64_t noise_tile) {
  if (!plan.graph) {
    const OnStream own(plan.stream);
    const int32_t code = record(plan);
    if (code != kCudaOk) return code;
  }
  launch(set_cell_kernel, dim3(1), dim3(kWarp), 0, plan.noise_tile, noise_tile);
  return failed() ? failure_code() : kCudaOk;
}

}  // namespace

int32_t plan_destroy(void* handle) {
  Plan* plan = static_cast<Plan*>(handle);
  if (!plan) return kCudaOk;
  if (plan->graph) services().graph_destroy(plan->graph);
  if (plan->finished) services().event_destroy(plan->finished);
  if (plan->stream) services().stream_destroy(plan->stream);
  release_kept(*plan);
  for (void* data : plan->owned) services().release(data);
  delete plan;
  return pending_failure();
}

int32_t plan_create(const CudaPlanDescription* description, void** handle) {
  *handle = nullptr;
  Plan* plan = new Plan;
  plan->kept.constants = &plan->constants;
  plan->code.assign(description->code, description->code + description->length);
  int32_t code = kCudaOk;
  if (description->arena_bytes < 0 || description->input_floats < 0 ||
      description->output_floats < 0) {
    fail(kCudaBadArgument, "plan: a size is negative");
    code = kCudaBadArgument;
  }
  if (code == kCudaOk) code = reserve_memory(*plan, *description);
  if (code == kCudaOk) code = upload_constants(*plan, *description);
  if (code == kCudaOk) {
    const std::string problem = walk(*plan, false);
    if (!problem.empty()) {
      fail(kCudaBadArgument, problem.c_str());
      code = kCudaBadArgument;
    }
  }
  if (code != kCudaOk) {
    plan_destroy(plan);
    return code;
  }
  *handle = plan;
  return kCudaOk;
}

int32_t plan_run(void* handle, const float* input, float* output, int64_t noise_tile) {
  Plan& plan = *static_cast<Plan*>(handle);
  const std::lock_guard<std::mutex> lock(plan.running);
  const OnStream own(plan.stream);
  int32_t code = services().event_wait(plan.finished);
  if (code == kCudaOk) code = prepare(plan, noise_tile);
  if (code == kCudaOk) code = services().copy_in(plan.input, input, plan.input_bytes);
  if (code == kCudaOk) code = services().graph_launch(plan.graph);
  if (code == kCudaOk) code = services().copy_out(output, plan.output, plan.output_bytes);
  return code;
}

int32_t plan_run_device(void* handle, const float* input, float* output, int64_t noise_tile) {
  Plan& plan = *static_cast<Plan*>(handle);
  const std::lock_guard<std::mutex> lock(plan.running);
  int32_t code = services().event_wait(plan.finished);
  if (code == kCudaOk) code = prepare(plan, noise_tile);
  if (code == kCudaOk) code = services().copy(plan.input, input, plan.input_bytes);
  if (code == kCudaOk) code = services().graph_launch(plan.graph);
  if (code == kCudaOk) code = services().copy(output, plan.output, plan.output_bytes);
  if (code == kCudaOk) code = services().event_record(plan.finished);
  return code;
}

}  // namespace cuda
}  // namespace spr2q
