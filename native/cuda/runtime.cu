// The device services over the CUDA runtime, and what kernels' launch code needs of it.
#include "runtime.hpp"

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

#include "device.cuh"
#include "scratch.hpp"

namespace spr2q {
namespace cuda {
namespace {

#if defined(SPR2Q_CUDA_SHIM)
constexpr CudaMemoryKind kMemoryKind = kHostMemory;
#else
constexpr CudaMemoryKind kMemoryKind = kDeviceMemory;
#endif

struct Failure {
  int32_t code = kCudaOk;
  char text[256] = "";
  char reported[256] = "";
};
thread_local Failure failure;
thread_local cudaStream_t stream = nullptr;
thread_local int32_t known_architecture = 0;
thread_local const int64_t* noise = nullptr;
thread_local int64_t launched = 0;
thread_local KeptBlocks* kept = nullptr;

std::mutex pools_mutex;
// One pool for each device and stream; the default stream of two devices is two streams.
std::map<std::pair<int, cudaStream_t>, ScratchPool> pools;

ScratchPool& pool() {
  int device = 0;
  cudaGetDevice(&device);
  const std::lock_guard<std::mutex> lock(pools_mutex);
  return pools[{device, stream}];
}

int32_t code_of(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return kCudaOk;
    case cudaErrorMemoryAllocation: return kCudaOutOfMemory;
    case cudaErrorNoDevice: return kCudaNoDevice;
    case cudaErrorDevicesUnavailable: return kCudaBusy;
    case cudaErrorNoKernelImageForDevice: return kCudaUnsupportedDevice;
    case cudaErrorSystemDriverMismatch:
    case cudaErrorUnsupportedPtxVersion: return kCudaDriverTooOld;
    case cudaErrorInvalidValue:
    case cudaErrorInvalidDevice:
    case cudaErrorInvalidResourceHandle: return kCudaBadArgument;
    case cudaErrorIllegalAddress:
    case cudaErrorHardwareStackError:
    case cudaErrorECCUncorrectable:
    case cudaErrorContextIsDestroyed:
    case cudaErrorLaunchFailure:  // these leave the context unusable, not only the launch
    case cudaErrorLaunchTimeout:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidPc:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorAssert:
    case cudaErrorUnknown: return kCudaDeviceLost;
    case cudaErrorInsufficientDriver: {
      int driver = 0;  // the static runtime gives this error without any driver too
      const bool none = cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0;
      return none ? kCudaNoDriver : kCudaDriverTooOld;
    }
    default: return kCudaLaunchFailed;
  }
}

// The error's code; a failure is kept with the name of the call.
int32_t checked(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return kCudaOk;
  cudaGetLastError();  // the runtime keeps it too, and the next launch would be blamed for it
  const int32_t code = code_of(error);
  char text[256];
  if (code == kCudaNoDriver) {  // the runtime's own text speaks of an old driver
    std::snprintf(text, sizeof text, "%s: this machine has no NVIDIA driver", call);
  } else {
    std::snprintf(text, sizeof text, "%s: %s (%s)", call, cudaGetErrorString(error),
                  cudaGetErrorName(error));
  }
  fail(code, text);
  return code;
}

int32_t versions(int32_t* driver, int32_t* runtime) {
  int d = 0, r = 0;
  const cudaError_t first = cudaDriverGetVersion(&d), second = cudaRuntimeGetVersion(&r);
  *driver = d;
  *runtime = r;
  return checked(first != cudaSuccess ? first : second, "versions");
}

int32_t device_count(int32_t* count) {
  int found = 0;
  const int32_t code = checked(cudaGetDeviceCount(&found), "cudaGetDeviceCount");
  *count = code == kCudaOk ? found : 0;
  return code;
}

int32_t describe_device(int32_t device, CudaDevice* description) {
  cudaDeviceProp properties;
  const int32_t code = checked(cudaGetDeviceProperties(&properties, device), "describe_device");
  if (code != kCudaOk) return code;
  std::memset(description, 0, sizeof *description);
  std::memcpy(description->name, properties.name, sizeof description->name - 1);
  description->architecture = 10 * properties.major + properties.minor;
  description->multiprocessors = properties.multiProcessorCount;
  description->memory_bytes = static_cast<int64_t>(properties.totalGlobalMem);
  description->l2_bytes = properties.l2CacheSize;
  int current = 0;
  cudaGetDevice(&current);
  size_t available = 0, total = 0;
  if (current == device && cudaMemGetInfo(&available, &total) == cudaSuccess) {
    description->free_bytes = static_cast<int64_t>(available);
  }
  return kCudaOk;
}

int32_t use_device(int32_t device) {
  CudaDevice description;
  const int32_t code = describe_device(device, &description);
  if (code != kCudaOk) return code;
  if (description.architecture < kOldestArchitecture) {
    char text[256];
    std::snprintf(text, sizeof text, "%s has compute capability %d.%d; 8.0 is the oldest supported",
                  description.name, description.architecture / 10, description.architecture % 10);
    fail(kCudaUnsupportedDevice, text);
    return kCudaUnsupportedDevice;
  }
  known_architecture = description.architecture;
  stream = nullptr;
  return checked(cudaSetDevice(device), "use_device");
}

int32_t allocate(void** data, int64_t bytes) {
  *data = nullptr;
  return checked(cudaMalloc(data, static_cast<size_t>(bytes > 0 ? bytes : 1)), "allocate");
}
int32_t release(void* data) { return checked(cudaFree(data), "release"); }

int32_t copy_in(void* device, const void* host, int64_t bytes) {
  const size_t size = static_cast<size_t>(bytes);
  const int32_t code =
      checked(cudaMemcpyAsync(device, host, size, cudaMemcpyHostToDevice, stream), "copy_in");
  return code != kCudaOk ? code : checked(cudaStreamSynchronize(stream), "copy_in");
}
int32_t copy_out(void* host, const void* device, int64_t bytes) {
  const size_t size = static_cast<size_t>(bytes);
  const int32_t code =
      checked(cudaMemcpyAsync(host, device, size, cudaMemcpyDeviceToHost, stream), "copy_out");
  return code != kCudaOk ? code : checked(cudaStreamSynchronize(stream), "copy_out");
}
int32_t copy(void* to, const void* from, int64_t bytes) {
  const size_t size = static_cast<size_t>(bytes);
  return checked(cudaMemcpyAsync(to, from, size, cudaMemcpyDeviceToDevice, stream), "copy");
}
int32_t fill(void* data, int32_t byte, int64_t bytes) {
  return checked(cudaMemsetAsync(data, byte, static_cast<size_t>(bytes), stream), "fill");
}

int32_t stream_create(void** created) {
  cudaStream_t made = nullptr;
  const int32_t code =
      checked(cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking), "stream_create");
  *created = made;
  return code;
}
int32_t stream_destroy(void* handle) {
  const cudaStream_t old = static_cast<cudaStream_t>(handle);
  checked(cudaStreamSynchronize(old), "stream_destroy");
  {
    const std::lock_guard<std::mutex> lock(pools_mutex);
    for (auto entry = pools.begin(); entry != pools.end();) {
      if (entry->first.second != old) {
        ++entry;
        continue;
      }
      for (const ScratchBlock& block : entry->second.blocks) cudaFree(block.data);
      for (const ScratchBlock& block : entry->second.arrivals) cudaFree(block.data);
      entry = pools.erase(entry);
    }
  }
  if (stream == old) stream = nullptr;
  return checked(cudaStreamDestroy(old), "stream_destroy");
}
int32_t use_stream(void* handle) {
  stream = static_cast<cudaStream_t>(handle);
  return kCudaOk;
}
int32_t synchronize() { return checked(cudaStreamSynchronize(stream), "synchronize"); }

int32_t capture_begin() {
  return checked(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture_begin");
}
int32_t capture_end(void** graph) {
  *graph = nullptr;
  cudaGraph_t recorded = nullptr;
  int32_t code = checked(cudaStreamEndCapture(stream, &recorded), "capture_end");
  if (code != kCudaOk) return code;
  cudaGraphExec_t ready = nullptr;
  code = checked(cudaGraphInstantiate(&ready, recorded, 0), "capture_end");
  cudaGraphDestroy(recorded);
  *graph = ready;
  return code;
}
int32_t graph_launch(void* graph) {
  return checked(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), stream), "graph_launch");
}
int32_t graph_destroy(void* graph) {
  return checked(cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph)), "graph_destroy");
}

int32_t event_create(void** event) {
  cudaEvent_t made = nullptr;
  const int32_t code = checked(cudaEventCreate(&made), "event_create");
  *event = made;
  return code;
}
int32_t event_destroy(void* event) {
  return checked(cudaEventDestroy(static_cast<cudaEvent_t>(event)), "event_destroy");
}
int32_t event_record(void* event) {
  return checked(cudaEventRecord(static_cast<cudaEvent_t>(event), stream), "event_record");
}
int32_t event_wait(void* event) {
  return checked(cudaStreamWaitEvent(stream, static_cast<cudaEvent_t>(event), 0), "event_wait");
}
int32_t event_milliseconds(void* from, void* to, double* milliseconds) {
  const cudaEvent_t end = static_cast<cudaEvent_t>(to);
  const int32_t code = checked(cudaEventSynchronize(end), "event_milliseconds");
  if (code != kCudaOk) return code;
  float elapsed = 0;
  const cudaError_t error = cudaEventElapsedTime(&elapsed, static_cast<cudaEvent_t>(from), end);
  *milliseconds = elapsed;
  return checked(error, "event_milliseconds");
}

int32_t last_error(const char** text) {
  const int32_t code = failure.code;
  std::memcpy(failure.reported, failure.text, sizeof failure.text);
  *text = failure.reported;
  failure.code = kCudaOk;
  failure.text[0] = 0;
  return code;
}

int32_t launches(int64_t* count) {
  *count = launched;
  return kCudaOk;
}

bool recording() {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  cudaStreamIsCapturing(stream, &status);
  return status != cudaStreamCaptureStatusNone;
}

// Memory that stays with the stream; null after a failure.
void* scratch_block(int64_t bytes) {
  if (recording()) {
    fail(kCudaScratchInCapture, "an op needs more scratch: run it once before recording it");
    return nullptr;
  }
  void* data = nullptr;
  checked(cudaMalloc(&data, static_cast<size_t>(bytes)), "scratch");
  return data;
}

}  // namespace

void fail(int32_t code, const char* text) {
  if (failure.code != kCudaOk) return;
  failure.code = code;
  std::snprintf(failure.text, sizeof failure.text, "%s", text);
}

bool failed() { return failure.code != kCudaOk; }
int32_t pending_failure() { return failure.code; }

void use_noise_cell(const int64_t* cell) { noise = cell; }
const int64_t* noise_cell() { return noise; }

int32_t architecture() {
  if (known_architecture == 0) {
    int device = 0, major = 0, minor = 0;
    if (checked(cudaGetDevice(&device), "cudaGetDevice") != kCudaOk) return 0;
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
    known_architecture = 10 * major + minor;
  }
  return known_architecture;
}

cudaStream_t current_stream() { return stream; }

void check_launch() {
  ++launched;
  checked(cudaGetLastError(), "kernel launch");
}

// The limit belongs to the kernel, for all threads and all that is recorded: it only ever rises.
void allow_shared(const void* kernel, int64_t bytes) {
  static std::mutex mutex;
  static std::map<std::pair<int, const void*>, int64_t> allowed;
  int device = 0;
  cudaGetDevice(&device);
  const std::lock_guard<std::mutex> lock(mutex);
  int64_t& most = allowed[{device, kernel}];
  if (bytes <= most) return;
  const cudaError_t error = cudaFuncSetAttribute(
      kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  if (checked(error, "shared memory of a kernel") == kCudaOk) most = bytes;
}

Scratch::Scratch() { pool().enter(); }
Scratch::~Scratch() { pool().leave(); }

void* Scratch::bytes(int64_t count) {
  if (failed()) return nullptr;
#if defined(SPR2Q_CUDA_SHIM) && defined(__SANITIZE_ADDRESS__)
  return std::malloc(static_cast<size_t>(count));  // a step past a piece's end is seen; never freed
#endif
  void* data = pool().take(count, scratch_block);
#if defined(SPR2Q_CUDA_SHIM)
  // Filled with NaNs: a kernel that reads what nobody wrote is seen.
  if (data) cudaMemsetAsync(data, 0xff, static_cast<size_t>(count), stream);
#endif
  return data;
}

void use_kept_blocks(KeptBlocks* blocks) {
  kept = blocks;
  if (kept) kept->next = 0;
}

bool keeps(const std::vector<const void*>& from) {
  const auto constant = [](const void* data) {
    const uint8_t* at = static_cast<const uint8_t*>(data);
    return !at || std::any_of(kept->constants->begin(), kept->constants->end(), [&](const Block& b) {
      return at >= b.data && at < b.data + b.bytes;
    });
  };
  return kept && std::all_of(from.begin(), from.end(), constant);
}

Kept keep(Scratch& scratch, int64_t bytes, const std::vector<const void*>& from) {
  if (!keeps(from)) return {scratch.take<uint8_t>(bytes), true};
  if (kept->made) return {kept->blocks[kept->next++], false};
  void* data = nullptr;
  if (allocate(&data, bytes) != kCudaOk) return {nullptr, true};
  kept->blocks.push_back(data);
  return {data, true};
}

unsigned* arrivals(int64_t count) {
  if (failed()) return nullptr;
  std::vector<ScratchBlock>& blocks = pool().arrivals;
  const int64_t needed = count * static_cast<int64_t>(sizeof(unsigned));
  if (blocks.empty() || blocks.back().bytes < needed) {
    const int64_t bytes = std::max(needed, kFirstArrivalBytes);
    void* data = scratch_block(bytes);
    if (!data || fill(data, 0, bytes) != kCudaOk) return nullptr;
    blocks.push_back({data, bytes});
  }
  return static_cast<unsigned*>(blocks.back().data);
}

const CudaServices& services() {
  static const CudaServices table = {
      kMemoryKind, versions,      device_count,  describe_device, use_device,    allocate,
      release,       copy_in,       copy_out,      copy,            fill,          stream_create,
      stream_destroy, use_stream,   synchronize,   capture_begin,   capture_end,   graph_launch,
      graph_destroy, event_create,  event_destroy, event_record,    event_milliseconds,
      last_error,    merge_pack_create, merge_pack_run, merge_pack_destroy,
      event_wait,    plan_create,   plan_run,      plan_run_device, plan_destroy,
      launches,
  };
  return table;
}

}  // namespace cuda
}  // namespace spr2q
