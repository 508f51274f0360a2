// The device services over host memory: "device" pointers are host pointers, streams and events
// are numbers, every launch has ended when it returns. A graph replays nothing here: recording
// runs the ops and launching one is refused, so that no test believes that it tested graphs.
#include "runtime.hpp"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "scratch.hpp"

namespace spr2q {
namespace cuda {
namespace {

thread_local int32_t failure = kCudaOk;
thread_local char failure_text[256] = "", reported_text[256] = "";
thread_local ScratchPool pool;
const char* const kNoGraphs = "the host shim records no graphs";

int32_t refuse(int32_t code, const char* text) {
  fail(code, text);
  return code;
}

int32_t versions(int32_t* driver, int32_t* runtime) {
  *driver = *runtime = 0;
  return kCudaOk;
}
int32_t device_count(int32_t* count) {
  *count = 1;
  return kCudaOk;
}
int32_t describe_device(int32_t device, CudaDevice* description) {
  if (device != 0) return refuse(kCudaBadArgument, "the host shim has one device");
  std::memset(description, 0, sizeof *description);
  std::snprintf(description->name, sizeof description->name, "host shim");
  description->architecture = architecture();
  description->multiprocessors = 1;
  return kCudaOk;
}
int32_t use_device(int32_t device) {
  return device == 0 ? kCudaOk : refuse(kCudaBadArgument, "the host shim has one device");
}
int32_t allocate(void** data, int64_t bytes) {
  *data = bytes >= 0 && bytes < (int64_t{1} << 40)
              ? std::aligned_alloc(256, static_cast<size_t>(bytes + 511) / 256 * 256)
              : nullptr;
  return *data ? kCudaOk : refuse(kCudaOutOfMemory, "allocate: out of memory");
}
int32_t release(void* data) {
  std::free(data);
  return kCudaOk;
}
int32_t copy_in(void* to, const void* from, int64_t bytes) {
  std::memcpy(to, from, static_cast<size_t>(bytes));
  return kCudaOk;
}
int32_t copy_out(void* to, const void* from, int64_t bytes) { return copy_in(to, from, bytes); }
int32_t fill(void* data, int32_t byte, int64_t bytes) {
  std::memset(data, byte, static_cast<size_t>(bytes));
  return kCudaOk;
}
int32_t stream_create(void** stream) {
  *stream = std::malloc(1);
  return kCudaOk;
}
int32_t stream_destroy(void* stream) { return release(stream); }
int32_t use_stream(void*) { return kCudaOk; }
int32_t synchronize() { return kCudaOk; }
int32_t capture_begin() { return refuse(kCudaBadArgument, kNoGraphs); }
int32_t capture_end(void** graph) {
  *graph = nullptr;
  return refuse(kCudaBadArgument, kNoGraphs);
}
int32_t graph_launch(void*) { return refuse(kCudaBadArgument, kNoGraphs); }
int32_t graph_destroy(void*) { return refuse(kCudaBadArgument, kNoGraphs); }

int32_t event_create(void** event) {
  *event = std::calloc(1, sizeof(double));
  return kCudaOk;
}
int32_t event_destroy(void* event) { return release(event); }
int32_t event_record(void* event) {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  *static_cast<double*>(event) = std::chrono::duration<double, std::milli>(now).count();
  return kCudaOk;
}
int32_t event_milliseconds(void* from, void* to, double* milliseconds) {
  *milliseconds = *static_cast<double*>(to) - *static_cast<double*>(from);
  return kCudaOk;
}

int32_t last_error(const char** text) {
  const int32_t code = failure;
  std::memcpy(reported_text, failure_text, sizeof failure_text);
  *text = reported_text;
  failure = kCudaOk;
  failure_text[0] = 0;
  return code;
}

}  // namespace

void fail(int32_t code, const char* text) {
  if (failure != kCudaOk) return;
  failure = code;
  std::snprintf(failure_text, sizeof failure_text, "%s", text);
}
bool failed() { return failure != kCudaOk; }

// SPR2Q_SHIM_ARCH: which of the operand widths the launch code chooses; 89 unless set.
int32_t architecture() {
  static const int32_t chosen = [] {
    const char* text = std::getenv("SPR2Q_SHIM_ARCH");
    return text ? std::atoi(text) : 89;
  }();
  return chosen;
}

Scratch::Scratch() { pool.enter(); }
Scratch::~Scratch() { pool.leave(); }

// Filled with NaNs: a kernel that reads what nobody wrote is seen. Under AddressSanitizer every
// piece is a block of its own size, left to the process, so that a step past its end is seen too.
void* Scratch::bytes(int64_t count) {
  if (failed()) return nullptr;
#if defined(__SANITIZE_ADDRESS__)
  void* data = std::malloc(static_cast<size_t>(count));
#else
  void* data = pool.take(count, [](int64_t size) {
    void* block = nullptr;
    allocate(&block, size);
    return block;
  });
#endif
  if (data) std::memset(data, 0xff, static_cast<size_t>(count));
  return data;
}

const CudaServices& services() {
  static const CudaServices table = {
      kHostMemory,    versions,     device_count,  describe_device, use_device,    allocate,
      release,        copy_in,      copy_out,      copy_in,         fill,          stream_create,
      stream_destroy, use_stream,   synchronize,   capture_begin,   capture_end,   graph_launch,
      graph_destroy,  event_create, event_destroy, event_record,    event_milliseconds,
      last_error,     merge_pack_create, merge_pack_run, merge_pack_destroy,
  };
  return table;
}

}  // namespace cuda
}  // namespace spr2q
