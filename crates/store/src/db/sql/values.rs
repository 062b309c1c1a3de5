//! Rows and parameters of either database, by SQLite's kinds of values.

use postgres::types::{FromSql as PostgresColumn, IsNull, ToSql as PostgresValue, Type};
use rusqlite::types::{FromSql, FromSqlError, ToSql, ToSqlOutput, Value, ValueRef};

type Source = Box<dyn std::error::Error + Send + Sync>;

/// A row of either database.
pub(crate) enum Row<'r> {
    Sqlite(&'r rusqlite::Row<'r>),
    Postgres(&'r postgres::Row),
}

impl Row<'_> {
    /// Where a column stands.
    pub(crate) fn index(&self, column: &str) -> rusqlite::Result<usize> {
        match self {
            Self::Sqlite(row) => row.as_ref().column_index(column),
            Self::Postgres(row) => row
                .columns()
                .iter()
                .position(|known| known.name() == column)
                .ok_or_else(|| rusqlite::Error::InvalidColumnName(column.to_owned())),
        }
    }

    /// A column's value, by name or place.
    pub(crate) fn get<I: Index, T: FromSql>(&self, column: I) -> rusqlite::Result<T> {
        let index = column.of(self)?;
        match self {
            Self::Sqlite(row) => row.get(index),
            Self::Postgres(row) => {
                let unreadable = |error: Source, kind| rusqlite::Error::FromSqlConversionFailure(index, kind, error);
                let cell: Cell<'_> =
                    row.try_get(index).map_err(|error| unreadable(Box::new(error), rusqlite::types::Type::Null))?;
                T::column_result(cell.0).map_err(|error| match error {
                    FromSqlError::OutOfRange(value) => rusqlite::Error::IntegralValueOutOfRange(index, value),
                    error => unreadable(Box::new(error), cell.0.data_type()),
                })
            }
        }
    }
}

/// A column by name or place.
pub(crate) trait Index {
    fn of(&self, row: &Row<'_>) -> rusqlite::Result<usize>;
}

impl Index for usize {
    fn of(&self, _: &Row<'_>) -> rusqlite::Result<usize> {
        Ok(*self)
    }
}

impl Index for &str {
    fn of(&self, row: &Row<'_>) -> rusqlite::Result<usize> {
        row.index(self)
    }
}

/// A PostgreSQL value, as SQLite would hand it out.
struct Cell<'a>(ValueRef<'a>);

impl<'a> PostgresColumn<'a> for Cell<'a> {
    fn from_sql(kind: &Type, raw: &'a [u8]) -> Result<Self, Source> {
        Ok(Self(match *kind {
            Type::INT8 => ValueRef::Integer(i64::from_sql(kind, raw)?),
            Type::INT4 => ValueRef::Integer(i32::from_sql(kind, raw)?.into()),
            Type::INT2 => ValueRef::Integer(i16::from_sql(kind, raw)?.into()),
            Type::BOOL => ValueRef::Integer(bool::from_sql(kind, raw)?.into()),
            Type::TEXT | Type::VARCHAR | Type::NAME => ValueRef::Text(raw),
            Type::BYTEA => ValueRef::Blob(raw),
            _ => return Err(format!("a column of type {kind} is not one of ours").into()),
        }))
    }

    fn from_sql_null(_: &Type) -> Result<Self, Source> {
        Ok(Self(ValueRef::Null))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// One of our parameters, as PostgreSQL wants it: its statement says of which type.
#[derive(Debug)]
pub(super) struct Parameter<'a>(pub(super) ToSqlOutput<'a>);

impl Parameter<'_> {
    fn value(&self) -> Result<ValueRef<'_>, Source> {
        match &self.0 {
            ToSqlOutput::Borrowed(value) => Ok(*value),
            ToSqlOutput::Owned(Value::Null) => Ok(ValueRef::Null),
            ToSqlOutput::Owned(value) => Ok(value.into()),
            _ => Err("a parameter is of no kind that both databases have".into()),
        }
    }
}

impl PostgresValue for Parameter<'_> {
    fn to_sql(&self, kind: &Type, out: &mut bytes::BytesMut) -> Result<IsNull, Source> {
        match (self.value()?, kind) {
            (ValueRef::Null, _) => Ok(IsNull::Yes),
            (ValueRef::Integer(value), &Type::INT8) => PostgresValue::to_sql(&value, kind, out),
            (ValueRef::Integer(value), &Type::INT4) => PostgresValue::to_sql(&i32::try_from(value)?, kind, out),
            (ValueRef::Integer(value), &Type::INT2) => PostgresValue::to_sql(&i16::try_from(value)?, kind, out),
            (ValueRef::Text(bytes), &(Type::TEXT | Type::VARCHAR)) | (ValueRef::Blob(bytes), &Type::BYTEA) => {
                out.extend_from_slice(bytes);
                Ok(IsNull::No)
            }
            (value, kind) => Err(format!("a parameter of kind {} is not {kind}", value.data_type()).into()),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    postgres::types::to_sql_checked!();
}

/// What a statement is given: nothing, a tuple, or an array.
pub(crate) trait Parameters {
    fn list(&self) -> Vec<&dyn ToSql>;
}

impl Parameters for () {
    fn list(&self) -> Vec<&dyn ToSql> {
        Vec::new()
    }
}

impl<T: ToSql, const N: usize> Parameters for [T; N] {
    fn list(&self) -> Vec<&dyn ToSql> {
        self.iter().map(|value| value as &dyn ToSql).collect()
    }
}

macro_rules! tuples {
    ($($name:ident)+) => {
        impl<$($name: ToSql),+> Parameters for ($($name,)+) {
            #[allow(non_snake_case, reason = "each is named as its type")]
            fn list(&self) -> Vec<&dyn ToSql> {
                let ($($name,)+) = self;
                vec![$($name as &dyn ToSql),+]
            }
        }
    };
}

tuples!(A);
tuples!(A B);
tuples!(A B C);
tuples!(A B C D);
tuples!(A B C D E);
tuples!(A B C D E F);
tuples!(A B C D E F G);
tuples!(A B C D E F G H);
tuples!(A B C D E F G H I);
tuples!(A B C D E F G H I J);
tuples!(A B C D E F G H I J K);
tuples!(A B C D E F G H I J K L);
