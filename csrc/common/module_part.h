// Functions that a file adds to the Python module: module.cpp need not know which files there are.
//
//     const ModulePart part([](pybind11::module_& m) { m.def("set_spectral_path", &set_spectral_path, ...); });
//
// at namespace scope. For switches of a family or a device; ops are registered with torch.
#pragma once

#include <pybind11/pybind11.h>

#include <vector>

namespace smore {

class ModulePart {
 public:
  using Add = void (*)(pybind11::module_&);

  explicit ModulePart(Add add) { all().push_back(add); }

  static void add_all(pybind11::module_& module) {
    for (const Add add : all()) add(module);
  }

 private:
  static std::vector<Add>& all() {
    static std::vector<Add> parts;
    return parts;
  }
};

}  // namespace smore
