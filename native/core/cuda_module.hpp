// What libspr2q_cuda.so exports: one function, spr2q_cuda_module(), that returns the op table of
// core/backend.hpp over device pointers, and a second, small table of device services. Plain C
// data, so that the addon (by dlopen) and a Python script (by ctypes) use it alike. The library
// carries the CUDA runtime inside and finds the driver at run time: loading it needs no GPU.
//
// Rules: an op queues its kernels on the stream in use and returns; nothing waits but
// synchronize(), copy_in(), copy_out(), merge_pack_create(), plan_create() and plan_run(). The first failure of a thread is
// kept, later launches of that thread do nothing, and last_error() returns it and clears it: so a
// caller may check once a step. One thread at a time uses a stream.
#pragma once
#include "backend.hpp"

namespace spr2q {

constexpr uint32_t kCudaAbiVersion = 5;

// Why something failed; the names stand in cuda_error_name().
enum CudaCode : int32_t {
  kCudaOk = 0,
  kCudaNoDriver = 1,          // no libcuda on this machine
  kCudaDriverTooOld = 2,      // the driver is older than the runtime inside the library
  kCudaNoDevice = 3,          // a driver, but no GPU that it shows
  kCudaUnsupportedDevice = 4, // compute capability below 8.0
  kCudaOutOfMemory = 5,
  kCudaDeviceLost = 6,        // the context is gone: the process must reopen the device
  kCudaLaunchFailed = 7,
  kCudaBadArgument = 8,
  kCudaScratchInCapture = 9,  // an op needs more scratch than before while a graph is recorded
  kCudaBusy = 10,             // the device is held exclusively by another process
};

constexpr int32_t kOldestArchitecture = 80;  // 10 * major + minor of the compute capability

enum CudaMemoryKind : int32_t { kDeviceMemory = 0, kHostMemory = 1 };  // host: the test shim

struct CudaDevice {
  char name[128];
  int32_t architecture;   // 89 for compute capability 8.9
  int32_t multiprocessors;
  int64_t memory_bytes, free_bytes, l2_bytes;
};

// One layer of merge_pack_run: its group merged, then Eq. 1 of the merged weight by the given
// weight bounds (kTensor or kRow), then PackCodedLinear, the weight never leaving the kernel.
struct MergePackLayer {
  RectifierGroup merge;
  F32 weight_lower, weight_upper, x_lower, x_upper, bias;
  U8 packed;
  int64_t x_bits, weight_bits, x_granularity, weight_granularity;
};

struct CudaHostBlock {
  const void* data;
  int64_t bytes;
};

// A list of op calls as plan_code.hpp has it, its constants in host memory, and the bytes of the
// arena; all is copied. Segments have no memory for tiles here, so no views of it: each is one kernel.
struct CudaPlanDescription {
  const double* code;
  int64_t length;
  const CudaHostBlock* constants;
  int64_t constant_count, arena_bytes, input_floats, output_floats;
};

struct CudaServices {
  int32_t memory_kind;  // CudaMemoryKind
  // Driver and runtime versions as 1000 major + 10 minor; 0 where there is no driver.
  int32_t (*versions)(int32_t* driver, int32_t* runtime);
  int32_t (*device_count)(int32_t* count);
  int32_t (*describe_device)(int32_t device, CudaDevice* description);
  int32_t (*use_device)(int32_t device);  // of the calling thread; device 0 unless called
  int32_t (*allocate)(void** data, int64_t bytes);
  int32_t (*release)(void* data);
  int32_t (*copy_in)(void* device, const void* host, int64_t bytes);
  int32_t (*copy_out)(void* host, const void* device, int64_t bytes);
  int32_t (*copy)(void* to, const void* from, int64_t bytes);  // device to device, on the stream
  int32_t (*fill)(void* data, int32_t byte, int64_t bytes);    // on the stream
  int32_t (*stream_create)(void** stream);
  int32_t (*stream_destroy)(void* stream);
  int32_t (*use_stream)(void* stream);  // of the calling thread; null is the default stream
  int32_t (*synchronize)();             // waits for the stream in use
  // Records what ops queue on the stream in use (not the default one) instead of running it.
  int32_t (*capture_begin)();
  int32_t (*capture_end)(void** graph);
  int32_t (*graph_launch)(void* graph);
  int32_t (*graph_destroy)(void* graph);
  int32_t (*event_create)(void** event);
  int32_t (*event_destroy)(void* event);
  int32_t (*event_record)(void* event);
  int32_t (*event_milliseconds)(void* from, void* to, double* milliseconds);  // waits for `to`
  // The first failure of this thread since the last call, as CudaCode; `text` names call and cause.
  int32_t (*last_error)(const char** text);
  // The rectifier groups of all layers merged, quantised and packed in one launch, which may be
  // recorded. The list lies in host memory and is copied once; its tensors lie on the device.
  int32_t (*merge_pack_create)(const MergePackLayer* layers, int64_t count, void** plan);
  int32_t (*merge_pack_run)(void* plan);
  int32_t (*merge_pack_destroy)(void* plan);
  int32_t (*event_wait)(void* event);  // what follows on the stream in use comes after the event
  // A frozen network. plan_run takes and fills host memory and waits for the result;
  // plan_run_device takes device pointers, queues its work on the stream in use of the calling
  // thread and waits for nothing (but the first run, which records the graph). input and output
  // have the description's sizes; noise_tile is added to the tile of every route. Runs of one plan
  // follow each other, from whatever threads.
  int32_t (*plan_create)(const CudaPlanDescription* description, void** plan);
  int32_t (*plan_run)(void* plan, const float* input, float* output, int64_t noise_tile);
  int32_t (*plan_run_device)(void* plan, const float* input, float* output, int64_t noise_tile);
  int32_t (*plan_destroy)(void* plan);
  // Kernels that this thread has launched or recorded so far.
  int32_t (*launches)(int64_t* count);
};

struct CudaModule {
  uint32_t abi_version;          // kCudaAbiVersion
  uint32_t backend_abi_version;  // kBackendAbiVersion
  int64_t backend_bytes, services_bytes;  // sizes of the tables: another op list shows here
  const Backend* backend;
  const CudaServices* services;
};

using CudaModuleFunction = const CudaModule* (*)();
constexpr const char* kCudaModuleSymbol = "spr2q_cuda_module";

// ERR_CUDA_NO_DRIVER and so on.
static inline const char* cuda_error_name(int32_t code) {
  switch (code) {
    case kCudaOk: return "OK";
    case kCudaNoDriver: return "ERR_CUDA_NO_DRIVER";
    case kCudaDriverTooOld: return "ERR_CUDA_DRIVER_TOO_OLD";
    case kCudaNoDevice: return "ERR_CUDA_NO_DEVICE";
    case kCudaUnsupportedDevice: return "ERR_CUDA_UNSUPPORTED_DEVICE";
    case kCudaOutOfMemory: return "ERR_CUDA_OUT_OF_MEMORY";
    case kCudaDeviceLost: return "ERR_CUDA_DEVICE_LOST";
    case kCudaLaunchFailed: return "ERR_CUDA_LAUNCH_FAILED";
    case kCudaBadArgument: return "ERR_CUDA_BAD_ARGUMENT";
    case kCudaScratchInCapture: return "ERR_CUDA_SCRATCH_IN_CAPTURE";
    case kCudaBusy: return "ERR_CUDA_BUSY";
    default: return "ERR_CUDA_UNKNOWN";
  }
}

}  // namespace spr2q
