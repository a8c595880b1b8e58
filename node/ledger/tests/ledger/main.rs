//! Exports from outside: written, read, tampered with, replayed.

mod damage;
mod files;
mod replays;
mod story;
