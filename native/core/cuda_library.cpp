// See cuda_library.hpp.
#include "cuda_library.hpp"

#include "system.hpp"

namespace spr2q {
namespace {

const CudaModule* host = nullptr;    // the last opened library over host memory
const CudaModule* usable = nullptr;  // the last one with a device that can be used

std::string number(int64_t value) { return std::to_string(value); }

// What does not fit between a library and this build; empty where all does.
std::string misfit(const CudaModule& module) {
  if (module.abi_version != kCudaAbiVersion || module.backend_abi_version != kBackendAbiVersion) {
    return "the library has versions " + number(module.abi_version) + "/" +
           number(module.backend_abi_version) + ", this build needs " + number(kCudaAbiVersion) +
           "/" + number(kBackendAbiVersion);
  }
  const int64_t backend = sizeof(Backend), services = sizeof(CudaServices);
  if (module.backend_bytes != backend || module.services_bytes != services) {
    return "the library has tables of " + number(module.backend_bytes) + " and " +
           number(module.services_bytes) + " bytes, this build of " + number(backend) + " and " +
           number(services) + ": another op list";
  }
  return "";
}

void ask_for_devices(CudaStatus& status) {
  const CudaServices& services = *status.module->services;
  int32_t count = 0, code = services.device_count(&count), usable = 0;
  for (int32_t i = 0; code == kCudaOk && i < count; ++i) {
    CudaDevice device;
    code = services.describe_device(i, &device);
    if (code == kCudaOk) status.devices.push_back(device);
  }
  const char* text = "";
  services.last_error(&text);
  status.code = cuda_error_name(code);
  status.text = text;
  if (code != kCudaOk) return;
  for (const CudaDevice& device : status.devices) {
    usable += device.architecture >= kOldestArchitecture;
  }
  if (status.devices.empty()) {
    status.code = cuda_error_name(kCudaNoDevice);
    status.text = "the driver shows no GPU";
  } else if (usable == 0) {
    status.code = cuda_error_name(kCudaUnsupportedDevice);
    status.text = std::string(status.devices[0].name) + " has compute capability " +
                  number(status.devices[0].architecture / 10) + "." +
                  number(status.devices[0].architecture % 10) + "; 8.0 is the oldest supported";
  }
}

}  // namespace

CudaStatus open_cuda_library(const char* path) {
  CudaStatus status;
  void* library = open_library(path, status.text);
  if (!library) {
    status.code = "ERR_CUDA_BAD_LIBRARY";
    return status;
  }
  const auto entry = reinterpret_cast<CudaModuleFunction>(library_symbol(library, kCudaModuleSymbol));
  const CudaModule* module = entry ? entry() : nullptr;
  const std::string problem =
      module ? misfit(*module) : std::string(path) + " has no " + kCudaModuleSymbol;
  if (!problem.empty()) {
    close_library(library);
    status.code = "ERR_CUDA_BAD_LIBRARY";
    status.text = problem;
    return status;
  }
  status.module = module;
  if (module->services->memory_kind == kHostMemory) host = module;
  ask_for_devices(status);
  usable = status.code == cuda_error_name(kCudaOk) ? module : nullptr;
  return status;
}

const Backend* host_cuda_backend() {
  return host ? host->backend : nullptr;
}

const CudaModule* usable_cuda_module() { return usable; }

std::string host_cuda_failure() {
  if (!host) return "";
  const char* text = "";
  const int32_t code = host->services->last_error(&text);
  return code == kCudaOk ? "" : std::string(cuda_error_name(code)) + ": " + text;
}

}  // namespace spr2q
