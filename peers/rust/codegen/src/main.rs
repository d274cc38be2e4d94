//! Writes the Rust code of a schema into a folder: `codegen FOLDER FILE.capnp OUT MODULE`, MODULE being where the
//! code will stand in its crate (`generated`, or `.` for the crate's top).
//!
//! The generated files are checked in, so that users of the crate need neither the `capnp` compiler nor a build
//! script. This program is the only thing here that runs the compiler.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, file, out, module] = arguments.as_slice() else {
        eprintln!("usage: codegen FOLDER FILE.capnp OUT MODULE");
        return ExitCode::from(2);
    };
    let mut command = capnpc::CompilerCommand::new();
    command.src_prefix(folder).file(format!("{folder}/{file}")).output_path(out).no_standard_import();
    if module != "." {
        command.default_parent_module(module.split("::").map(str::to_owned).collect());
    }
    match command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{file}: {error}");
            ExitCode::FAILURE
        }
    }
}
