// See system.hpp.
#include "system.hpp"

#include <cstdlib>

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
#include <malloc.h>
#include <windows.h>
#else
#include <dlfcn.h>
#include <sys/mman.h>
#endif

namespace spr2q {
namespace {

constexpr int64_t up_to_pages(int64_t bytes) {
  return (bytes + kHugePage - 1) / kHugePage * kHugePage;
}

}  // namespace

#if defined(_WIN32)

void* aligned_block(size_t bytes) { return _aligned_malloc(bytes, 64); }

void free_aligned(void* block) { _aligned_free(block); }

// Windows gives boundaries of 64 KiB, and large pages only to those with a privilege.
Pages map_pages(int64_t bytes) {
  const int64_t rounded = up_to_pages(bytes);
  void* data = VirtualAlloc(nullptr, static_cast<size_t>(rounded), MEM_RESERVE | MEM_COMMIT,
                            PAGE_READWRITE);
  if (!data) return {};
  return {static_cast<uint8_t*>(data), rounded};
}

void unmap_pages(const Pages& pages) {
  if (pages.data) VirtualFree(pages.data, 0, MEM_RELEASE);
}

void* open_library(const char* path, std::string& why) {
  const int length = MultiByteToWideChar(CP_UTF8, 0, path, -1, nullptr, 0);
  std::wstring wide(static_cast<size_t>(length), L'\0');
  MultiByteToWideChar(CP_UTF8, 0, path, -1, &wide[0], length);
  void* library = LoadLibraryW(wide.c_str());
  if (!library) why = std::string(path) + ": Windows error " + std::to_string(GetLastError());
  return library;
}

void* library_symbol(void* library, const char* name) {
  return reinterpret_cast<void*>(GetProcAddress(static_cast<HMODULE>(library), name));
}

void close_library(void* library) { FreeLibrary(static_cast<HMODULE>(library)); }

void keep_loaded() {
  HMODULE self = nullptr;
  GetModuleHandleExW(GET_MODULE_HANDLE_EX_FLAG_PIN | GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS,
                     reinterpret_cast<LPCWSTR>(&keep_loaded), &self);
}

#else

void* aligned_block(size_t bytes) { return std::aligned_alloc(64, (bytes + 63) / 64 * 64); }

void free_aligned(void* block) { std::free(block); }

// Mapped with room for the boundary, whose ends are given back.
Pages map_pages(int64_t bytes) {
  const int64_t rounded = up_to_pages(bytes);
  void* wide = mmap(nullptr, static_cast<size_t>(rounded + kHugePage), PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (wide == MAP_FAILED) return {};
  uint8_t* begin = static_cast<uint8_t*>(wide);
  const int64_t over = static_cast<int64_t>(reinterpret_cast<uintptr_t>(begin) % kHugePage);
  const int64_t before = over ? kHugePage - over : 0;
  if (before) munmap(begin, static_cast<size_t>(before));
  if (before < kHugePage) munmap(begin + before + rounded, static_cast<size_t>(kHugePage - before));
#if defined(MADV_HUGEPAGE)
  madvise(begin + before, static_cast<size_t>(rounded), MADV_HUGEPAGE);
#endif
  return {begin + before, rounded};
}

void unmap_pages(const Pages& pages) {
  if (pages.data) munmap(pages.data, static_cast<size_t>(pages.bytes));
}

void* open_library(const char* path, std::string& why) {
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library) return library;
  const char* text = dlerror();
  why = text ? text : path;
  return nullptr;
}

void* library_symbol(void* library, const char* name) { return dlsym(library, name); }

void close_library(void* library) { dlclose(library); }

void keep_loaded() {}

#endif

}  // namespace spr2q
