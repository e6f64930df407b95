# 64-bit Arm on another Linux machine, its ctest under qemu's user mode (Debian: g++-aarch64-linux-gnu, qemu-user-static):
#   cmake -S . -B build/aarch64 -DCMAKE_TOOLCHAIN_FILE=sdk/native/cmake/aarch64-linux.cmake
#   cmake --build build/aarch64 --parallel 2
#   ctest --test-dir build/aarch64 --output-on-failure
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64-static -L /usr/aarch64-linux-gnu)
set(CLICKMASK_CUDA OFF CACHE STRING "This machine's nvcc compiles for this machine")
