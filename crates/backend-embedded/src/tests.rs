//! The embedded backend under the laws of every port.
