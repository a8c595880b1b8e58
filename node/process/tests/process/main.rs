//! dovetail-process from outside: files, handshakes, the admin endpoint.

mod admin;
mod handshake;
mod load;
mod pki;
mod sign;
mod support;
