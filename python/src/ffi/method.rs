//! Methods that PyO3 cannot make: one that reads its arguments in place, and finalizers.
//!
//! It relies on the interpreter calling a method only on its own class, with as many arguments as it says.

use std::ffi::{CStr, c_int};
use std::{mem, ptr, slice};

use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::PyClass;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyString;

use super::{called, called_quickly};

/// Arguments as an array. CPython has had it since 3.7, and lists it as stable since 3.10.
const METH_FASTCALL: c_int = 0x80;

/// A method that reads its arguments in place, with the names of the last of them.
type FastMethod = unsafe extern "C" fn(
    *mut ffi::PyObject,
    *const *mut ffi::PyObject,
    ffi::Py_ssize_t,
    *mut ffi::PyObject,
) -> *mut ffi::PyObject;

/// The arguments of a call, in place.
pub(crate) struct Arguments<'a, 'py> {
    py: Python<'py>,
    positional: &'a [*mut ffi::PyObject],
    named: &'a [*mut ffi::PyObject],
    names: Option<Bound<'py, PyAny>>,
}

impl<'py> Arguments<'_, 'py> {
    pub(crate) fn py(&self) -> Python<'py> {
        self.py
    }

    /// The arguments by these names; so many of the first may also come by their places. `None` as an argument is none.
    #[inline]
    pub(crate) fn by_name<const N: usize>(
        &self,
        function: &str,
        positional: usize,
        expected: [&str; N],
    ) -> PyResult<[Option<Bound<'py, PyAny>>; N]> {
        if self.positional.len() > positional {
            return Err(PyTypeError::new_err(format!(
                "{function}() takes {positional} positional arguments, not {}",
                self.positional.len()
            )));
        }
        // SAFETY: arguments are live objects for as long as the call lasts.
        let bound =
            |argument: &*mut ffi::PyObject| unsafe { Bound::from_borrowed_ptr(self.py, *argument) };
        let mut found: [Option<Bound<'py, PyAny>>; N] = [const { None }; N];
        for (place, argument) in found.iter_mut().zip(self.positional) {
            *place = Some(bound(argument));
        }
        let Some(names) = &self.names else { return Ok(found) };
        for (name, argument) in names.try_iter()?.zip(self.named) {
            let name = name?;
            let name = name.cast::<PyString>()?.to_cow()?;
            let Some(place) = expected.iter().position(|expected| *expected == name) else {
                return Err(PyTypeError::new_err(format!(
                    "{function}() got an unexpected keyword argument '{name}'"
                )));
            };
            if found[place].replace(bound(argument)).is_some() {
                return Err(PyTypeError::new_err(format!(
                    "{function}() got multiple values for argument '{name}'"
                )));
            }
        }
        Ok(found)
    }
}

/// A class and what its method does. `C` is the class; the method gives a new object.
pub(crate) trait Method {
    type Class: PyClass;
    const NAME: &'static CStr;
    /// Begins with the signature, as `help()` wants it.
    const DOC: &'static CStr;

    /// Does not attach, and drops no `Py`: see [`called_quickly`].
    fn call<'py>(
        this: &Bound<'py, Self::Class>,
        arguments: &Arguments<'_, 'py>,
    ) -> PyResult<Bound<'py, PyAny>>;
}

/// Gives a class the method.
pub(crate) fn add_method<M: Method>(py: Python<'_>) -> PyResult<()> {
    // SAFETY: the interpreter turns it back, since the flags say how it takes its arguments.
    let function = unsafe { mem::transmute::<FastMethod, ffi::PyCFunction>(fast_method::<M>) };
    add::<M::Class>(py, M::NAME, M::DOC, function, METH_FASTCALL | ffi::METH_KEYWORDS)
}

/// Gives a class a finalizer (PEP 442): the collector calls it while everything that the object refers to is still
/// whole. After it, an object has nothing left whose end runs Python code. An object whose last reference goes is not
/// finalized but dropped.
pub(crate) fn add_finalizer<C: Finalize>(py: Python<'_>) -> PyResult<()> {
    add::<C>(py, c"__del__", c"", finalize::<C>, ffi::METH_NOARGS)?;
    let finalizer = py.get_type::<C>().getattr(intern!(py, "__del__"))?.unbind();
    C::finalizer().get_or_init(py, || finalizer);
    Ok(())
}

/// Whether a class has its finalizer still: a program may take it away, and then an object that is dropped may be one
/// that the collector clears.
pub(crate) fn has_finalizer<C: Finalize>(py: Python<'_>) -> bool {
    let known = py.get_type::<C>().getattr_opt(intern!(py, "__del__")).ok().flatten();
    known.is_some_and(|known| C::finalizer().get(py).is_some_and(|own| known.is(own)))
}

/// What a finalizer does.
pub(crate) trait Finalize:
    PyClass<Frozen = pyo3::pyclass::boolean_struct::True> + Sync
{
    fn finalize(this: &Bound<'_, Self>);

    /// Where the finalizer is kept.
    fn finalizer() -> &'static PyOnceLock<Py<PyAny>>;
}

fn add<C: PyClass>(
    py: Python<'_>,
    name: &'static CStr,
    doc: &'static CStr,
    function: ffi::PyCFunction,
    flags: c_int,
) -> PyResult<()> {
    // The interpreter refers to it for as long as it lives.
    let definition = Box::leak(Box::new(ffi::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunction: function },
        ml_flags: flags,
        ml_doc: if doc.is_empty() { ptr::null() } else { doc.as_ptr() },
    }));
    let class = py.get_type::<C>();
    // SAFETY: the type and the definition are valid, the latter for ever; the flags say how the function takes its
    // arguments.
    let method = unsafe {
        let method = ffi::PyDescr_NewMethod(class.as_ptr().cast(), definition);
        Bound::from_owned_ptr_or_err(py, method)?
    };
    class.setattr(PyString::from_bytes(py, name.to_bytes())?, method)
}

unsafe extern "C" fn finalize<C: Finalize>(
    object: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    called(ptr::null_mut(), |py| {
        // SAFETY: the interpreter calls a method only on its own class.
        let object = unsafe { Bound::from_borrowed_ptr(py, object).cast_into_unchecked::<C>() };
        C::finalize(&object);
        Ok(py.None().into_ptr())
    })
}

unsafe extern "C" fn fast_method<M: Method>(
    object: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    positional: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    called_quickly(ptr::null_mut(), |py| {
        // SAFETY: the interpreter calls a method only on its own class, with so many arguments, and behind them a value
        // for each of the names.
        let (object, arguments) = unsafe {
            let object = Bound::from_borrowed_ptr(py, object).cast_into_unchecked::<M::Class>();
            let names = Bound::from_borrowed_ptr_or_opt(py, names);
            let named = names.as_ref().map_or(0, |names| ffi::PyTuple_Size(names.as_ptr()));
            let count = (positional + named).cast_unsigned();
            let all: &[*mut ffi::PyObject] =
                if count == 0 { &[] } else { slice::from_raw_parts(arguments, count) };
            let (positional, named) = all.split_at(positional.cast_unsigned());
            (object, Arguments { py, positional, named, names })
        };
        M::call(&object, &arguments).map(Bound::into_ptr)
    })
}
