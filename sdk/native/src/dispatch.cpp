#include "dispatch.h"

#include <cstring>
#include <vector>

namespace {

#if defined(CLICKMASK_X86)
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq");
}
#endif

std::vector<const Kernels *> all_usable() {
  std::vector<const Kernels *> found;
#if defined(CLICKMASK_X86)
  if (has_avx512()) found.push_back(&avx512_kernels());
  if (has_avx2()) found.push_back(&avx2_kernels());
#elif defined(CLICKMASK_NEON)
  found.push_back(&neon_kernels());
#endif
  found.push_back(&portable_kernels());
  return found;
}

const std::vector<const Kernels *> &usable() {
  static const std::vector<const Kernels *> found = all_usable();
  return found;
}

std::string names() {
  std::string text;
  for (const Kernels *kernels : usable()) text += (text.empty() ? "" : ",") + std::string(kernels->name);
  return text;
}

}  // namespace

const Kernels *find_kernels(const char *name) {
  for (const Kernels *kernels : usable())
    if (name == nullptr || std::strcmp(kernels->name, name) == 0) return kernels;
  return nullptr;
}

const std::string &usable_kernels() {
  static const std::string text = names();
  return text;
}
