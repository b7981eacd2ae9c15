# Quanvas - build helpers. Sources are globbed, so that a plug-in, a verb or a test is added with one file.
include(dependencies)

find_program(CCACHE ccache)
if(CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_NOHASHDIR=1
    CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime ${CCACHE})
endif()
find_program(MOLD mold)
if(MOLD AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  add_link_options(-fuse-ld=mold)
endif()

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()

add_library(quanvas_options INTERFACE)
# -Wno-restrict: g++ 12 warns about std::string concatenations that are fine.
target_compile_options(quanvas_options INTERFACE -Wall -Wextra $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict> $<$<BOOL:${QUANVAS_WERROR}>:-Werror>)
target_include_directories(quanvas_options INTERFACE ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR}/generated)
target_compile_definitions(quanvas_options INTERFACE QT_NO_KEYWORDS)
configure_file(${CMAKE_SOURCE_DIR}/core/base/version.h.in ${CMAKE_BINARY_DIR}/generated/core/base/version.h)

# quanvas_library(name STATIC|OBJECT|SHARED folders...): every .cpp of the folders (not below them).
function(quanvas_library name kind)
  set(sources)
  foreach(folder ${ARGN})
    file(GLOB found CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${folder}/*.cpp
      ${CMAKE_CURRENT_SOURCE_DIR}/${folder}/*.h)
    list(APPEND sources ${found})
  endforeach()
  if(NOT sources)  # a folder that waits for its first file
    set(sources ${CMAKE_BINARY_DIR}/generated/${name}_empty.cpp)
    file(CONFIGURE OUTPUT ${sources} CONTENT "")
  endif()
  add_library(${name} ${kind} ${sources})
  target_link_libraries(${name} PUBLIC quanvas_options)
endfunction()
