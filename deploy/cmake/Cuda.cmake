# The CUDA toolkit, and how kernels are compiled.
#
# nvcc is called by commands of ours, and CUDA is no language of the project: CMake 3.25 does not know that nvcc has
# C++20, would need nvcc for a build without CUDA, too, and cannot keep what ptxas says.
#
# auto: expert services can use GPUs if deploy/cuda.sh finds a toolkit. on: it must. off: they cannot.

set(EXPERTMESH_CUDA auto CACHE STRING "Build what computes experts on GPUs: auto, on or off")
set_property(CACHE EXPERTMESH_CUDA PROPERTY STRINGS auto on off)
set(EXPERTMESH_CUDA_ARCHITECTURES "80;90;100" CACHE STRING
    "Compute capabilities that kernels are compiled for; of the last, also as PTX, for later ones")

set(EXPERTMESH_CUDA_ROOT)
string(TOLOWER "${EXPERTMESH_CUDA}" EXPERTMESH_CUDA_WANTED)
if(NOT EXPERTMESH_CUDA_WANTED MATCHES "^(auto|on|off)$")
  message(FATAL_ERROR "EXPERTMESH_CUDA is ${EXPERTMESH_CUDA}; use auto, on or off")
endif()
# Sanitizers see nothing of a GPU; the same sources run under them on the host (tests/cuda_host).
if(EXPERTMESH_CUDA_WANTED STREQUAL "on" OR (EXPERTMESH_CUDA_WANTED STREQUAL "auto" AND NOT EXPERTMESH_SANITIZE))
  execute_process(
    COMMAND ${PROJECT_SOURCE_DIR}/deploy/cuda.sh find
    OUTPUT_VARIABLE EXPERTMESH_CUDA_ROOT OUTPUT_STRIP_TRAILING_WHITESPACE
    ERROR_VARIABLE CUDA_PASSED_OVER ERROR_STRIP_TRAILING_WHITESPACE)
  if(NOT EXPERTMESH_CUDA_ROOT AND EXPERTMESH_CUDA_WANTED STREQUAL "on")
    message(FATAL_ERROR "EXPERTMESH_CUDA is on, and there is no CUDA toolkit; deploy/packages.sh install --cuda "
                        "brings one, CUDA_HOME names one\n${CUDA_PASSED_OVER}")
  endif()
endif()
if(EXPERTMESH_CUDA_ROOT)
  list(JOIN EXPERTMESH_CUDA_ARCHITECTURES ", sm_" CUDA_TARGETS)
  message(STATUS "CUDA: ${EXPERTMESH_CUDA_ROOT}, sm_${CUDA_TARGETS}")
  find_library(CUDA_RUNTIME_LIBRARY cudart PATHS ${EXPERTMESH_CUDA_ROOT} PATH_SUFFIXES lib64 lib
    NO_DEFAULT_PATH NO_CACHE REQUIRED)
  find_library(CUBLAS_LIBRARY cublas PATHS ${EXPERTMESH_CUDA_ROOT} PATH_SUFFIXES lib64 lib
    NO_DEFAULT_PATH NO_CACHE REQUIRED)
  add_library(expertmesh_cuda_toolkit INTERFACE)
  add_library(expertmesh::cuda_toolkit ALIAS expertmesh_cuda_toolkit)
  target_include_directories(expertmesh_cuda_toolkit SYSTEM INTERFACE ${EXPERTMESH_CUDA_ROOT}/include)
  target_link_libraries(expertmesh_cuda_toolkit INTERFACE ${CUBLAS_LIBRARY} ${CUDA_RUNTIME_LIBRARY})
else()
  message(STATUS "CUDA: not built (EXPERTMESH_CUDA=${EXPERTMESH_CUDA})")
endif()

# What every .cu file is compiled with.
set(EXPERTMESH_NVCC_FLAGS
  -std=c++20 -O3 -DNDEBUG -Xcompiler=-fPIC,-Wall,-Wextra -Werror=all-warnings -Xptxas=-v,-warn-spills -lineinfo
  # With the roundings of the CPU backend; where kernels want a fused multiply-add, they say so.
  -fmad=false
  -ccbin ${CMAKE_CXX_COMPILER} -I ${PROJECT_SOURCE_DIR} -include ${CMAKE_CURRENT_LIST_DIR}/cuda_checks.h)
foreach(architecture ${EXPERTMESH_CUDA_ARCHITECTURES})
  list(APPEND EXPERTMESH_NVCC_FLAGS -gencode arch=compute_${architecture},code=sm_${architecture})
endforeach()
list(GET EXPERTMESH_CUDA_ARCHITECTURES -1 last)
list(APPEND EXPERTMESH_NVCC_FLAGS -gencode arch=compute_${last},code=compute_${last})

# expertmesh_cuda_objects(OUT a.cu ...): sets OUT to their object files. What ptxas says of each is beside it, as
# .ptxas, under ${PROJECT_BINARY_DIR}/cuda.
function(expertmesh_cuda_objects out)
  set(objects)
  foreach(source ${ARGN})
    file(RELATIVE_PATH name ${PROJECT_SOURCE_DIR} ${source})
    set(made ${PROJECT_BINARY_DIR}/cuda/${name})
    get_filename_component(folder ${made} DIRECTORY)
    file(MAKE_DIRECTORY ${folder})
    add_custom_command(
      OUTPUT ${made}.o ${made}.ptxas
      COMMAND ${PROJECT_SOURCE_DIR}/deploy/cmake/nvcc.sh ${made}.ptxas ${CMAKE_CXX_COMPILER_LAUNCHER}
              ${EXPERTMESH_CUDA_ROOT}/bin/nvcc ${EXPERTMESH_NVCC_FLAGS}
              -MD -MF ${made}.d -MT ${made}.o -c ${source} -o ${made}.o
      DEPENDS ${source} ${EXPERTMESH_CUDA_ROOT}/bin/nvcc ${PROJECT_SOURCE_DIR}/deploy/cmake/nvcc.sh
              ${PROJECT_SOURCE_DIR}/deploy/cmake/cuda_checks.h
      DEPFILE ${made}.d
      COMMENT "Compiling ${name} with nvcc"
      VERBATIM)
    list(APPEND objects ${made}.o)
  endforeach()
  set(${out} ${objects} PARENT_SCOPE)
endfunction()

# expertmesh_cuda_sources(HOST a.cc ... KERNELS b.cu ... PUBLIC c.h ...): of this room, what the CUDA backend is made of.
# Whether or not there is a toolkit, their paths are in the global properties EXPERTMESH_CUDA_HOST and
# EXPERTMESH_CUDA_KERNELS, for the tests that compile them for the host (tests/cuda_host).
define_property(GLOBAL PROPERTY EXPERTMESH_CUDA_HOST)
define_property(GLOBAL PROPERTY EXPERTMESH_CUDA_KERNELS)
function(expertmesh_cuda_sources)
  cmake_parse_arguments(ARG "" "" "HOST;KERNELS;PUBLIC" ${ARGN})
  foreach(kind HOST KERNELS)
    list(TRANSFORM ARG_${kind} PREPEND ${CMAKE_CURRENT_SOURCE_DIR}/)
    set_property(GLOBAL APPEND PROPERTY EXPERTMESH_CUDA_${kind} ${ARG_${kind}})
  endforeach()
endfunction()

# expertmesh_cuda_library(NAME DEPS x ...): static library expertmesh_NAME, alias expertmesh::NAME, of all that
# expertmesh_cuda_sources has named so far.
function(expertmesh_cuda_library name)
  cmake_parse_arguments(ARG "" "" "DEPS" ${ARGN})
  get_property(host GLOBAL PROPERTY EXPERTMESH_CUDA_HOST)
  get_property(kernels GLOBAL PROPERTY EXPERTMESH_CUDA_KERNELS)
  expertmesh_cuda_objects(objects ${kernels})
  add_library(expertmesh_${name} STATIC ${host} ${objects})
  target_link_libraries(expertmesh_${name} PUBLIC ${ARG_DEPS} expertmesh::cuda_toolkit PRIVATE expertmesh::options)
  target_include_directories(expertmesh_${name} PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>)
  add_library(expertmesh::${name} ALIAS expertmesh_${name})
endfunction()
