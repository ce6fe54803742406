// Python module smore_ext._C: how this library was built, and the switches that other files add (common/module_part.h).
// Loading it registers the ops, which sit in the other files.
//
// SMORE_BUILD_TORCH and SMORE_BUILD_FLAGS come from setup.py; SMORE_BUILD_CUDA and SMORE_BUILD_CUDA_ARCHS
// too, if the CUDA kernels are in. pybind11 is the copy among torch's headers.
#include <ATen/Config.h>
#include <pybind11/pybind11.h>

#include <string>
#include <string_view>

#include "common/module_part.h"
#include "cpu/host_cache.h"
#include "cpu/simd/level.h"

namespace py = pybind11;

namespace {

// smore_ext/_native.py looks for this text in the file, before loading it into a process with another torch
// could crash.
constexpr std::string_view kStamp = "smore_ext built against torch ";
[[gnu::used]] const char stamp[] = "smore_ext built against torch " SMORE_BUILD_TORCH;

std::string compiler() {
#if defined(__clang__)
  return "Clang " __clang_version__;
#elif defined(__GNUC__)
  return "GCC " __VERSION__;
#else
  return "unknown";
#endif
}

// Kernels have no threads of their own: torch_parallel_for runs them on the ones of this backend.
const char* threading() {
#if AT_PARALLEL_OPENMP
  return "libtorch, OpenMP";
#else
  return "libtorch, own thread pool";
#endif
}

py::dict build_info() {
  py::dict info;
  info["torch"] = stamp + kStamp.size();
  info["compiler"] = compiler();
  info["flags"] = SMORE_BUILD_FLAGS;
#ifdef SMORE_BUILD_CUDA
  info["cuda"] = SMORE_BUILD_CUDA;
  info["cuda_archs"] = SMORE_BUILD_CUDA_ARCHS;
#else
  info["cuda"] = py::none();
  info["cuda_archs"] = py::none();
#endif
  info["simd_built"] = smore::simd_levels_built();
  info["simd"] = smore::simd_level_name();
  info["threading"] = threading();
  return info;
}

py::tuple host_cache() {
  const smore::HostCacheState state = smore::host_cache();
  return py::make_tuple(state.max_bytes, state.every_tensor, state.kept_bytes);
}

}  // namespace

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.doc() = "Compiled part of smore_ext";
  m.def("build_info", &build_info, "How this library was built, and the SIMD level that it uses here.");
  m.def("set_host_cache", &smore::set_host_cache, py::arg("max_bytes"), py::arg("every_tensor"),
        "Reuse of large blocks of CPU memory, of our own ops' results or of every tensor; 0 stops it.");
  m.def("host_cache", &host_cache, "(max_bytes, every_tensor, kept_bytes).");
  m.def("clear_host_cache", &smore::clear_host_cache, "Give back what is kept.");
  smore::ModulePart::add_all(m);
}
