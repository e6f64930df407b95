// Which kernels this machine can run.
#pragma once

#include <string>

#include "kernels.h"

// The kernels of a name, or the best where it is null; null where there are none.
const Kernels *find_kernels(const char *name);

// Names of all that can run here, best first, separated by commas.
const std::string &usable_kernels();
