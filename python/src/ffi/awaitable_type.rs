//! The type of awaitables: its slots, methods and attributes.
//!
//! It relies on each slot, method and attribute having a function of its own type.

use std::ffi::{CStr, c_int, c_void};
use std::{mem, ptr};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyType;

use super::AM_SEND;
use super::attributes::{awaited, is_running, is_suspended, name_of, of_awaited, repr};
use super::awaitable::{
    Awaitable, Operation, am_send, clear, close, dealloc, finalize, itself, next, refuse_new, send,
    throw, traverse,
};

pub(super) fn make_type<O: Operation>(py: Python<'_>) -> PyResult<Py<PyType>> {
    /// From 3.10.
    const IMMUTABLE: u64 = 1 << 8;
    let method = |name: &'static CStr, function: ffi::PyCFunction, flags| ffi::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunction: function },
        ml_flags: flags,
        ml_doc: ptr::null(),
    };
    let methods = Box::leak(Box::new([
        method(c"send", send::<O>, ffi::METH_O),
        method(c"throw", throw::<O>, ffi::METH_VARARGS),
        method(c"close", close::<O>, ffi::METH_NOARGS),
        ffi::PyMethodDef::zeroed(),
    ]));
    let attribute = |name: &'static CStr, get: ffi::getter| ffi::PyGetSetDef {
        name: name.as_ptr(),
        get: Some(get),
        closure: name.as_ptr().cast_mut().cast(),
        ..ffi::PyGetSetDef::default()
    };
    let attributes = Box::leak(Box::new([
        attribute(c"__name__", name_of::<O>),
        attribute(c"__qualname__", name_of::<O>),
        attribute(c"cr_await", awaited::<O>),
        attribute(c"cr_running", is_running::<O>),
        attribute(c"cr_suspended", is_suspended::<O>),
        attribute(c"cr_frame", of_awaited::<O>),
        attribute(c"cr_code", of_awaited::<O>),
        attribute(c"cr_origin", of_awaited::<O>),
        ffi::PyGetSetDef::default(),
    ]));
    let members = Box::leak(Box::new([
        ffi::PyMemberDef {
            name: c"__weaklistoffset__".as_ptr(),
            type_code: ffi::Py_T_PYSSIZET,
            offset: mem::offset_of!(Awaitable<O>, weak).cast_signed(),
            flags: ffi::Py_READONLY,
            doc: ptr::null(),
        },
        ffi::PyMemberDef { name: ptr::null(), type_code: 0, offset: 0, flags: 0, doc: ptr::null() },
    ]));
    let (new, dealloc): (ffi::newfunc, ffi::destructor) = (refuse_new, dealloc::<O>);
    let (traverse, clear): (ffi::traverseproc, ffi::inquiry) = (traverse::<O>, clear::<O>);
    let (itself, finalize): (ffi::unaryfunc, ffi::destructor) = (itself, finalize::<O>);
    let (repr, next): (ffi::reprfunc, ffi::iternextfunc) = (repr::<O>, next::<O>);
    let slot = |slot, pfunc| ffi::PyType_Slot { slot, pfunc };
    let mut slots = vec![
        slot(ffi::Py_tp_new, new as *mut c_void),
        slot(ffi::Py_tp_dealloc, dealloc as *mut c_void),
        slot(ffi::Py_tp_finalize, finalize as *mut c_void),
        slot(ffi::Py_tp_traverse, traverse as *mut c_void),
        slot(ffi::Py_tp_clear, clear as *mut c_void),
        slot(ffi::Py_tp_repr, repr as *mut c_void),
        slot(ffi::Py_am_await, itself as *mut c_void),
        slot(ffi::Py_tp_iter, itself as *mut c_void),
        slot(ffi::Py_tp_iternext, next as *mut c_void),
        slot(ffi::Py_tp_methods, methods.as_mut_ptr().cast()),
        slot(ffi::Py_tp_getset, attributes.as_mut_ptr().cast()),
        slot(ffi::Py_tp_members, members.as_mut_ptr().cast()),
    ];
    let mut flags = ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_HAVE_GC;
    if py.version_info() >= (3, 10) {
        slots.push(slot(AM_SEND, am_send::<O> as *mut c_void));
        flags |= IMMUTABLE;
    }
    slots.push(slot(0, ptr::null_mut()));
    let mut spec = ffi::PyType_Spec {
        name: O::TYPE_NAME.as_ptr(),
        basicsize: c_int::try_from(size_of::<Awaitable<O>>())?,
        itemsize: 0,
        flags: flags as u32,
        slots: slots.as_mut_ptr(),
    };
    // SAFETY: the slots hold functions of their slots' types and end with a zero; methods, attributes and members live
    // for ever.
    let kind = unsafe {
        let kind = ffi::PyType_FromSpec(&raw mut spec);
        Bound::from_owned_ptr_or_err(py, kind)?
    };
    Ok(kind.cast_into::<PyType>()?.unbind())
}
