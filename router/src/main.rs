//! `myelin`: the router and everything around it.

fn main() -> std::process::ExitCode {
    myelin::cli::main()
}
