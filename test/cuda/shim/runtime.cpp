// The CUDA runtime over host memory: see cuda_runtime.h. What is queued runs at once, or with
// SPR2Q_SHIM_DEFER=1 only when the host waits for it, as late as a GPU could: host code that reads
// too early, or frees too early, is then seen. The machine it plays is set by the environment:
//   SPR2Q_SHIM_ARCH=52        compute capability 5.2; 89 unless set
//   SPR2Q_SHIM_MEMORY=BYTES   memory of the device; what the process can have unless set
//   SPR2Q_SHIM_DRIVER=11000   version of the driver, 0: there is none; 13000 unless set
//   SPR2Q_SHIM_FAULT=cudaMalloc@5=cudaErrorMemoryAllocation,launch@99+=cudaErrorIllegalAddress
//                             the 5th call fails; from the 99th on all do. "launch" is a kernel.
// An error that leaves a GPU's context unusable stays: every later call gives it again.
#include "cuda_runtime.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "runtime.hpp"

namespace shim {

using Work = std::function<void()>;

// What a kernel was launched with beyond its closure; none for other work.
struct Shared {
  const void* kernel = nullptr;
  int64_t bytes = 0;
};
struct Recorded {
  Work work;
  Shared shared;
};

struct Stream {
  std::vector<Work> queued;
  std::vector<Recorded> recorded;
  bool capturing = false;
};
struct Event {
  double milliseconds = 0;
};
struct Graph {
  std::vector<Recorded> work;
};

namespace {

std::recursive_mutex everything;
Stream default_stream;
std::set<Stream*> streams = {&default_stream};
std::map<void*, size_t> blocks;
size_t held = 0;
cudaError_t lost = cudaSuccess;           // what makes the device unusable
thread_local cudaError_t last = cudaSuccess;

const char* setting(const char* name) {
  const char* text = std::getenv(name);
  return text && *text ? text : nullptr;
}
long long number(const char* name, long long otherwise) {
  const char* text = setting(name);
  return text ? std::atoll(text) : otherwise;
}

struct Name {
  cudaError_t error;
  const char* name;
  bool stays;
};
const Name kNames[] = {
    {cudaSuccess, "cudaSuccess", false},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", false},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", false},
    {cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver", false},
    {cudaErrorDevicesUnavailable, "cudaErrorDevicesUnavailable", false},
    {cudaErrorNoDevice, "cudaErrorNoDevice", false},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", false},
    {cudaErrorNoKernelImageForDevice, "cudaErrorNoKernelImageForDevice", false},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", false},
    {cudaErrorECCUncorrectable, "cudaErrorECCUncorrectable", true},
    {cudaErrorIllegalAddress, "cudaErrorIllegalAddress", true},
    {cudaErrorLaunchTimeout, "cudaErrorLaunchTimeout", true},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", true},
    {cudaErrorUnknown, "cudaErrorUnknown", true},
};

struct Fault {
  long long at;
  bool onwards;
  cudaError_t error;
};

std::map<std::string, Fault> read_faults() {
  std::map<std::string, Fault> faults;
  const char* text = setting("SPR2Q_SHIM_FAULT");
  std::string rest = text ? text : "";
  while (!rest.empty()) {
    const std::string one = rest.substr(0, rest.find(','));
    rest = one.size() < rest.size() ? rest.substr(one.size() + 1) : "";
    const size_t at = one.find('@'), equals = one.find('=');
    const Name* found = nullptr;
    for (const Name& name : kNames) {
      if (equals != std::string::npos && one.substr(equals + 1) == name.name) found = &name;
    }
    if (at == std::string::npos || !found) {
      std::fprintf(stderr, "SPR2Q_SHIM_FAULT: \"%s\" is no CALL@N=cudaError...\n", one.c_str());
      std::abort();
    }
    const bool onwards = one[equals - 1] == '+';
    faults[one.substr(0, at)] = {std::atoll(one.c_str() + at + 1), onwards, found->error};
  }
  return faults;
}

// The result of a call by that name: what makes the device unusable, a fault asked for, or success.
cudaError_t outcome(const char* call) {
  static const std::map<std::string, Fault> faults = read_faults();
  static std::map<std::string, long long> calls;
  if (faults.empty()) return cudaSuccess;  // without the lock, which a launch holds: kernels ask too
  const std::lock_guard<std::recursive_mutex> lock(everything);
  if (lost != cudaSuccess) return last = lost;
  const auto fault = faults.find(call);
  if (fault == faults.end()) return cudaSuccess;
  const long long count = ++calls[call];
  const bool strikes = fault->second.onwards ? count >= fault->second.at : count == fault->second.at;
  if (!strikes) return cudaSuccess;
  for (const Name& name : kNames) {
    if (name.error == fault->second.error && name.stays) lost = name.error;
  }
  return last = fault->second.error;
}

int architecture() { return static_cast<int>(number("SPR2Q_SHIM_ARCH", 89)); }

// Dynamic shared memory that a kernel may ask for: what cudaFuncSetAttribute() allowed it, of at most
// what a block of the architecture can have (CUDA's table of compute capabilities).
constexpr int64_t kUnasked = 48 << 10;
std::map<const void*, int64_t> allowed;

int64_t most_shared() {
  switch (architecture()) {
    case 80:
    case 87: return 163 << 10;
    case 90:
    case 100: return 227 << 10;
    default: return 99 << 10;  // 86, 89, 120
  }
}
bool fits(const Shared& shared) {
  const std::lock_guard<std::recursive_mutex> lock(everything);
  const auto found = allowed.find(shared.kernel);
  return shared.bytes <= (found == allowed.end() ? kUnasked : found->second);
}
// Asked again of what was recorded: a limit that was lowered in between must not matter.
bool all_fit(const Graph& graph) {
  for (const Recorded& one : graph.work) {
    if (!fits(one.shared)) return false;
  }
  return true;
}

// Queues (or runs, or records) work on a stream.
void queue(Stream* stream, Work work, Shared shared = {}) {
  const std::lock_guard<std::recursive_mutex> lock(everything);
  static const bool deferred = number("SPR2Q_SHIM_DEFER", 0) != 0;
  Stream& at = stream ? *stream : default_stream;
  if (at.capturing) at.recorded.push_back({std::move(work), shared});
  else if (deferred) at.queued.push_back(std::move(work));
  else work();
}

void finish(Stream* stream) {
  const std::lock_guard<std::recursive_mutex> lock(everything);
  Stream& at = stream ? *stream : default_stream;
  std::vector<Work> work;
  work.swap(at.queued);
  for (Work& one : work) one();
}
void finish_all() {
  const std::lock_guard<std::recursive_mutex> lock(everything);
  for (Stream* stream : streams) finish(stream);
}

bool driver_works() { return number("SPR2Q_SHIM_DRIVER", 13000) >= 12000; }

size_t memory_of_device() {
  return static_cast<size_t>(number("SPR2Q_SHIM_MEMORY", 1ll << 40));
}

}  // namespace

void launch(Stream* stream, const void* kernel, dim3 grid, dim3 block, int64_t shared, Work body) {
  if (outcome("launch") != cudaSuccess) return;
  const Shared wanted = {kernel, shared};
  if (!fits(wanted)) {
    last = cudaErrorInvalidValue;
    return;
  }
  const auto work = [=] {
    const char* problem = run(grid, block, shared, body);
    if (problem) spr2q::cuda::fail(spr2q::kCudaLaunchFailed, problem);
  };
  queue(stream, work, wanted);
}

}  // namespace shim

using namespace shim;

const char* cudaGetErrorName(cudaError_t error) {
  for (const Name& name : kNames) {
    if (name.error == error) return name.name;
  }
  return "cudaErrorUnknown";
}
const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorMemoryAllocation ? "out of memory"
         : error == cudaErrorInvalidValue   ? "a value is out of range"
                                            : "as the shim was told";
}
cudaError_t cudaGetLastError() {
  const cudaError_t error = lost != cudaSuccess ? lost : last;
  last = cudaSuccess;
  return error;
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = static_cast<int>(number("SPR2Q_SHIM_DRIVER", 13000));
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return driver_works() ? outcome("cudaGetDeviceCount") : cudaErrorInsufficientDriver;
}
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return outcome("cudaGetDevice");
}
cudaError_t cudaSetDevice(int device) {
  return device == 0 ? outcome("cudaSetDevice") : cudaErrorInvalidDevice;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device != 0) return cudaErrorInvalidDevice;
  std::memset(properties, 0, sizeof *properties);
  std::snprintf(properties->name, sizeof properties->name, "host shim");
  properties->major = architecture() / 10;
  properties->minor = architecture() % 10;
  properties->multiProcessorCount = 1;
  properties->totalGlobalMem = memory_of_device();
  return outcome("cudaGetDeviceProperties");
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrComputeCapabilityMajor ? architecture() / 10 : architecture() % 10;
  return outcome("cudaDeviceGetAttribute");
}
cudaError_t cudaMemGetInfo(size_t* available, size_t* total) {
  *total = memory_of_device();
  *available = *total - held;
  return outcome("cudaMemGetInfo");
}

// Filled with NaNs: a kernel that reads what nobody wrote is seen.
cudaError_t cudaMalloc(void** data, size_t bytes) {
  *data = nullptr;
  const cudaError_t error = outcome("cudaMalloc");
  if (error != cudaSuccess) return error;
  const std::lock_guard<std::recursive_mutex> lock(everything);
  if (bytes > memory_of_device() - held) return last = cudaErrorMemoryAllocation;
  *data = std::aligned_alloc(256, (bytes + 511) / 256 * 256);
  if (!*data) return last = cudaErrorMemoryAllocation;
  std::memset(*data, 0xff, bytes);
  blocks[*data] = bytes;
  held += bytes;
  return cudaSuccess;
}
cudaError_t cudaFree(void* data) {
  const std::lock_guard<std::recursive_mutex> lock(everything);
  finish_all();
  const auto block = blocks.find(data);
  if (data && block == blocks.end()) return last = cudaErrorInvalidValue;
  if (data) {
    held -= block->second;
    blocks.erase(block);
    std::free(data);
  }
  return outcome("cudaFree");
}

// Copies to and from pageable host memory: the first have read, the second have written when they
// return, as those of CUDA do.
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  const cudaError_t error = outcome("cudaMemcpyAsync");
  if (error != cudaSuccess) return error;
  if (kind != cudaMemcpyHostToDevice) {
    queue(stream, [=] { std::memcpy(to, from, bytes); });
    if (kind == cudaMemcpyDeviceToHost) finish(stream);
    return cudaSuccess;
  }
  const std::vector<char> staged(static_cast<const char*>(from),
                                 static_cast<const char*>(from) + bytes);
  queue(stream, [=] { std::memcpy(to, staged.data(), bytes); });
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* data, int byte, size_t bytes, cudaStream_t stream) {
  const cudaError_t error = outcome("cudaMemsetAsync");
  if (error == cudaSuccess) queue(stream, [=] { std::memset(data, byte, bytes); });
  return error;
}
cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute, int value) {
  const cudaError_t error = outcome("cudaFuncSetAttribute");
  if (error != cudaSuccess) return error;
  if (value < 0 || value > most_shared()) return last = cudaErrorInvalidValue;
  const std::lock_guard<std::recursive_mutex> lock(everything);
  allowed[kernel] = value;
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = nullptr;
  const cudaError_t error = outcome("cudaStreamCreateWithFlags");
  if (error != cudaSuccess) return error;
  const std::lock_guard<std::recursive_mutex> lock(everything);
  *stream = new Stream;
  streams.insert(*stream);
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (stream && stream->capturing) return last = cudaErrorInvalidValue;  // may not wait then
  finish(stream);
  return outcome("cudaStreamSynchronize");
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const std::lock_guard<std::recursive_mutex> lock(everything);
  finish(stream);
  streams.erase(stream);
  delete stream;
  return outcome("cudaStreamDestroy");
}
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  const cudaError_t error = outcome("cudaStreamBeginCapture");
  if (error != cudaSuccess) return error;
  if (!stream || stream->capturing) return last = cudaErrorInvalidValue;  // not the default stream
  stream->capturing = true;
  stream->recorded.clear();
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = nullptr;
  if (!stream || !stream->capturing) return last = cudaErrorInvalidValue;
  stream->capturing = false;
  const cudaError_t error = outcome("cudaStreamEndCapture");
  if (error == cudaSuccess) *graph = new Graph{std::move(stream->recorded)};
  return error;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  const bool capturing = stream && stream->capturing;
  *status = capturing ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return outcome("cudaStreamIsCapturing");
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* ready, cudaGraph_t graph, unsigned long long) {
  *ready = nullptr;
  const cudaError_t error = outcome("cudaGraphInstantiate");
  if (error == cudaSuccess && !all_fit(*graph)) return last = cudaErrorInvalidValue;
  if (error == cudaSuccess) *ready = new Graph(*graph);
  return error;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) {
  const cudaError_t error = outcome("cudaGraphLaunch");
  if (error != cudaSuccess) return error;
  if (!all_fit(*graph)) return last = cudaErrorInvalidValue;
  for (const Recorded& one : graph->work) queue(stream, one.work, one.shared);
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
  finish_all();
  delete graph;
  return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t* event) {
  *event = new Event;
  return outcome("cudaEventCreate");
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  finish_all();
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  queue(stream, [=] {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    event->milliseconds = std::chrono::duration<double, std::milli>(now).count();
  });
  return outcome("cudaEventRecord");
}
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) {
  finish_all();  // as good as waiting
  return outcome("cudaStreamWaitEvent");
}
cudaError_t cudaEventSynchronize(cudaEvent_t) {
  finish_all();
  return outcome("cudaEventSynchronize");
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t from, cudaEvent_t to) {
  *milliseconds = static_cast<float>(to->milliseconds - from->milliseconds);
  return cudaSuccess;
}
