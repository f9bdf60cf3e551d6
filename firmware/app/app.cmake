# The application on one board: the target `app`, in the build folder itself.
#
# add_app(board_sources...): called by boards/<board>/CMakeLists.txt after add_kernel.
function(add_app)
    set(folder "${CMAKE_SOURCE_DIR}/app")
    add_executable(app ${ARGN}
        ${folder}/main.c
        ${folder}/link.c
        ${folder}/sampling.c
        ${folder}/command_task.c)
    target_include_directories(app PRIVATE
        "${CMAKE_CURRENT_SOURCE_DIR}" "${CMAKE_SOURCE_DIR}" "${CMAKE_SOURCE_DIR}/boards")
    target_link_libraries(app PRIVATE kernel edgeloop_app edgeloop_mqttsn edgeloop_ring edgeloop_wire edgeloop_warnings)
    set_target_properties(app PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}")
endfunction()
