# Compiler settings, and one function per kind of target.

include(GNUInstallDirs)

add_library(expertmesh_options INTERFACE)
add_library(expertmesh::options ALIAS expertmesh_options)
target_include_directories(expertmesh_options INTERFACE $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>)
target_compile_options(expertmesh_options INTERFACE -Wall -Wextra -Wnon-virtual-dtor -Woverloaded-virtual)
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  target_compile_options(expertmesh_options INTERFACE -Wthread-safety)
endif()
if(EXPERTMESH_WERROR)
  target_compile_options(expertmesh_options INTERFACE -Werror)
endif()
if(EXPERTMESH_SANITIZE)
  add_compile_options(-fsanitize=${EXPERTMESH_SANITIZE} -fno-omit-frame-pointer -g1)
  add_link_options(-fsanitize=${EXPERTMESH_SANITIZE})
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # Instrumentation makes GCC see uninitialised members where there are none.
    target_compile_options(expertmesh_options INTERFACE -Wno-maybe-uninitialized)
  endif()
endif()
# Part of every program of a ThreadSanitizer build; empty otherwise.
set(EXPERTMESH_TSAN)
if(EXPERTMESH_SANITIZE STREQUAL "thread")
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # Abseil's flags order their reads with a fence, which ThreadSanitizer does not see.
    target_compile_options(expertmesh_options INTERFACE -Wno-tsan)
  endif()
  set(EXPERTMESH_TSAN expertmesh_tsan)
  add_library(expertmesh_tsan OBJECT ${PROJECT_SOURCE_DIR}/tests/tsan_mutex.cc)
  # The sanitizer's own library looks for these in the program.
  target_link_options(expertmesh_tsan INTERFACE
    -Wl,--export-dynamic-symbol=__tsan_default_options
    -Wl,--export-dynamic-symbol=__tsan_default_suppressions)
endif()

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM)
  # Paths below the tree are hashed relative to it, so that every clone of it shares one cache.
  set(CMAKE_CXX_COMPILER_LAUNCHER
      ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${PROJECT_SOURCE_DIR} CCACHE_NOHASHDIR=1 ${CCACHE_PROGRAM})
endif()
find_program(LLD_PROGRAM ld.lld)
if(LLD_PROGRAM)
  add_link_options(-fuse-ld=lld)
endif()

# Most of a first build is the reading of headers. A precompiled header takes that time off it, and off
# the compiler cache's hits as well: for trees that are built once (deploy/local.sh), not for work on them.
option(EXPERTMESH_PRECOMPILE "Precompile the headers of the standard library, Abseil and gRPC" OFF)
if(EXPERTMESH_PRECOMPILE)
  # As gRPC asks of those that link it: what is precompiled fits only where the options are the same.
  target_compile_options(expertmesh_options INTERFACE -pthread)
  if(CMAKE_CXX_COMPILER_LAUNCHER)
    list(INSERT CMAKE_CXX_COMPILER_LAUNCHER 3 CCACHE_SLOPPINESS=pch_defines,time_macros)
  endif()
  set(EMPTY_SOURCE ${PROJECT_BINARY_DIR}/precompiled.cc)
  file(CONFIGURE OUTPUT ${EMPTY_SOURCE} CONTENT "// Carries a precompiled header.\n" @ONLY)
  foreach(kind base net)
    add_library(expertmesh_precompiled_${kind} OBJECT ${EMPTY_SOURCE})
    target_link_libraries(expertmesh_precompiled_${kind} PRIVATE expertmesh::options)
    target_precompile_headers(expertmesh_precompiled_${kind}
      PRIVATE ${CMAKE_CURRENT_LIST_DIR}/precompiled_${kind}.h)
  endforeach()
endif()

# expertmesh_precompile(TARGET DEPS): TARGET's sources start from the headers that DEPS, its dependencies,
# suggest.
function(expertmesh_precompile target deps)
  if(EXPERTMESH_PRECOMPILE)
    set(kind base)
    if("${deps}" MATCHES "grpc|expertmesh::net|expertmesh::client")
      set(kind net)
    endif()
    target_precompile_headers(${target} REUSE_FROM expertmesh_precompiled_${kind})
  endif()
endfunction()

# expertmesh_library(NAME SOURCES a.cc ... PUBLIC a.h ... DEPS x ...): static library expertmesh_NAME,
# alias expertmesh::NAME. Includes are written from the top of the tree: "common/base/clock.h". PUBLIC:
# the headers that other rooms may include (tests/lint/rooms.py).
function(expertmesh_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;PUBLIC;DEPS" ${ARGN})
  if(ARG_SOURCES)
    add_library(expertmesh_${name} STATIC ${ARG_SOURCES})
    target_link_libraries(expertmesh_${name} PUBLIC ${ARG_DEPS} PRIVATE expertmesh::options)
    target_include_directories(expertmesh_${name} PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>)
    expertmesh_precompile(expertmesh_${name} "${ARG_DEPS}")
  else()
    add_library(expertmesh_${name} INTERFACE)
    target_link_libraries(expertmesh_${name} INTERFACE ${ARG_DEPS} expertmesh::options)
  endif()
  add_library(expertmesh::${name} ALIAS expertmesh_${name})
endfunction()

# expertmesh_proto_library(NAME [GRPC] ROOT folder FILES path/of/a ...): static library expertmesh_NAME,
# alias expertmesh::NAME, of what protoc makes from FILES, .proto files named from ROOT; GRPC: with service
# stubs. Includes are written from ROOT: "path/of/a.pb.h".
function(expertmesh_proto_library name)
  cmake_parse_arguments(ARG "GRPC" "ROOT" "FILES" ${ARGN})
  set(out ${PROJECT_BINARY_DIR}/generated)
  file(MAKE_DIRECTORY ${out})
  set(kinds pb)
  set(plugin)
  if(ARG_GRPC)
    list(APPEND kinds grpc.pb)
    find_program(GRPC_CPP_PLUGIN grpc_cpp_plugin REQUIRED)
    set(plugin --grpc_out=${out} --plugin=protoc-gen-grpc=${GRPC_CPP_PLUGIN})
  endif()
  set(protos)
  set(sources)
  set(headers)
  foreach(file ${ARG_FILES})
    list(APPEND protos ${ARG_ROOT}/${file}.proto)
    foreach(kind ${kinds})
      list(APPEND sources ${out}/${file}.${kind}.cc)
      list(APPEND headers ${out}/${file}.${kind}.h)
    endforeach()
  endforeach()
  add_custom_command(
    OUTPUT ${sources} ${headers}
    COMMAND ${Protobuf_PROTOC_EXECUTABLE} -I ${ARG_ROOT} --cpp_out=${out} ${plugin} ${protos}
    DEPENDS ${protos}
    VERBATIM)
  add_library(expertmesh_${name} STATIC ${sources})
  add_library(expertmesh::${name} ALIAS expertmesh_${name})
  target_include_directories(expertmesh_${name} SYSTEM PUBLIC $<BUILD_INTERFACE:${out}>)
  target_link_libraries(expertmesh_${name} PUBLIC protobuf::libprotobuf)
  if(ARG_GRPC)
    target_link_libraries(expertmesh_${name} PUBLIC gRPC::grpc++)
    expertmesh_precompile(expertmesh_${name} grpc)
  endif()
  if(EXPERTMESH_SANITIZE MATCHES thread)
    target_compile_options(expertmesh_${name} PUBLIC
      "SHELL:-include ${PROJECT_SOURCE_DIR}/proto/protobuf_under_tsan.h")
  endif()
endfunction()

# expertmesh_name_unbuilt(TARGET [CODE]): when TARGET is not built, installing says so and how to build it,
# and runs CODE.
function(expertmesh_name_unbuilt target)
  install(CODE "
    if(NOT EXISTS \"$<TARGET_FILE:${target}>\")
      message(STATUS \"Not installed, since it is not built: ${target} \"
                     \"(cmake --build ${PROJECT_BINARY_DIR} --target ${target})\")
      ${ARGN}
    endif()")
endfunction()

# expertmesh_binary(NAME SOURCES ... DEPS ...): executable NAME, installed where it is built.
function(expertmesh_binary name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${EXPERTMESH_TSAN} ${ARG_DEPS} expertmesh::options)
  install(TARGETS ${name} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} OPTIONAL)
  expertmesh_name_unbuilt(${name})
endfunction()

# No test is judged by how long it takes: machines differ, and others may keep their cores busy. This many
# seconds end what hangs, in every test, early enough for the rest of a run to be seen. Instrumented programs
# are slower.
set(EXPERTMESH_SLOWNESS 1)
if(EXPERTMESH_SANITIZE MATCHES "thread")
  set(EXPERTMESH_SLOWNESS 8)
elseif(EXPERTMESH_SANITIZE)
  set(EXPERTMESH_SLOWNESS 4)
endif()
math(EXPR EXPERTMESH_HANG_SECONDS "1200 * ${EXPERTMESH_SLOWNESS}")

# expertmesh_test(NAME SOURCES ... DEPS ...): GoogleTest binary NAME, one ctest entry, label "unit".
function(expertmesh_test name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${EXPERTMESH_TSAN} ${ARG_DEPS} expertmesh::options GTest::gmock GTest::gtest_main)
  target_compile_definitions(${name} PRIVATE EXPERTMESH_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  # Tests are compiled more often than they run. GCC 12 warns of an overlap inside its own std::string
  # (its bug 105651).
  target_compile_options(${name} PRIVATE -O1 $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>)
  add_test(NAME unit.${name} COMMAND ${name})
  set_tests_properties(unit.${name} PROPERTIES LABELS unit TIMEOUT ${EXPERTMESH_HANG_SECONDS})
endfunction()

# expertmesh_cuda_host_library(NAME SOURCES a.cc ... KERNELS b.cu ... DEPS ...): static library
# expertmesh_NAME, alias expertmesh::NAME, of CUDA code, host code and kernels, compiled for the CPU against
# tests/cuda_host in place of the toolkit.
function(expertmesh_cuda_host_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;KERNELS;DEPS" ${ARGN})
  set_source_files_properties(${ARG_KERNELS} PROPERTIES LANGUAGE CXX)
  add_library(expertmesh_${name} STATIC ${ARG_SOURCES} ${ARG_KERNELS})
  add_library(expertmesh::${name} ALIAS expertmesh_${name})
  target_link_libraries(expertmesh_${name}
    PUBLIC expertmesh::cuda_host ${ARG_DEPS} PRIVATE expertmesh::options)
  target_compile_options(expertmesh_${name} PRIVATE -O2)
endfunction()

# expertmesh_cuda_host_test(NAME SOURCES ... KERNELS b.cu ... DEPS ...): as expertmesh_test, with
# kernels, and against tests/cuda_host.
function(expertmesh_cuda_host_test name)
  cmake_parse_arguments(ARG "" "" "SOURCES;KERNELS;DEPS" ${ARGN})
  set_source_files_properties(${ARG_KERNELS} PROPERTIES LANGUAGE CXX)
  expertmesh_test(${name} SOURCES ${ARG_SOURCES} ${ARG_KERNELS} DEPS expertmesh::cuda_host ${ARG_DEPS})
endfunction()

# expertmesh_benchmark(NAME SOURCES ... DEPS ...): Google Benchmark binary, not a test.
function(expertmesh_benchmark name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${EXPERTMESH_TSAN} ${ARG_DEPS} expertmesh::options benchmark::benchmark_main)
endfunction()
