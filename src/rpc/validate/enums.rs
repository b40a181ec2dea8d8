//! Checks of enum fields, and the macro that ties a domain enum to its protobuf twin.

use super::Validator;

/// A domain enum with a protobuf twin. [`proto_enum!`] implements it.
pub trait ProtoEnum: Copy + PartialEq + Sized + 'static {
    /// The name of the protobuf enum.
    const NAME: &'static str;
    /// All values.
    const VALUES: &'static [Self];

    /// Returns the value with a protobuf number; `None` for 0 and for unknown numbers.
    fn from_number(number: i32) -> Option<Self>;

    /// Returns the name of the value in the contract.
    fn proto_name(self) -> &'static str;
}

/// Implements [`ProtoEnum`], and `From` towards protobuf, for a domain enum:
/// `proto_enum!(State = v1::WorkflowState { Pending = Pending, … })`, domain value first.
macro_rules! proto_enum {
    ($domain:ident = $module:ident::$proto:ident { $($value:ident = $number:ident,)+ }) => {
        impl $crate::rpc::validate::ProtoEnum for $domain {
            const NAME: &'static str = stringify!($proto);
            const VALUES: &'static [Self] = &[$(Self::$value,)+];

            fn from_number(number: i32) -> Option<Self> {
                match $module::$proto::try_from(number).ok()? {
                    $module::$proto::Unspecified => None,
                    $($module::$proto::$number => Some(Self::$value),)+
                }
            }

            fn proto_name(self) -> &'static str {
                $module::$proto::from(self).as_str_name()
            }
        }

        impl From<$domain> for $module::$proto {
            fn from(value: $domain) -> Self {
                match value { $($domain::$value => Self::$number,)+ }
            }
        }
    };
}

pub(crate) use proto_enum;

impl Validator {
    /// Checks an enum; 0 (UNSPECIFIED) is unset.
    pub fn optional_enum<T: ProtoEnum>(&mut self, field: &str, number: i32) -> Option<T> {
        let value = T::from_number(number);
        if value.is_none() && number != 0 {
            self.violation(field, unknown::<T>(number));
        }
        value
    }

    /// Checks a required enum; `placeholder` is returned beside a violation.
    pub fn required_enum<T: ProtoEnum>(&mut self, field: &str, number: i32, placeholder: T) -> T {
        if number == 0 {
            self.violation(field, "is required");
        }
        self.optional_enum(field, number).unwrap_or(placeholder)
    }

    /// Checks a set of enums, without UNSPECIFIED; returns each value once.
    pub fn enum_set<T: ProtoEnum>(&mut self, field: &str, numbers: &[i32]) -> Vec<T> {
        let mut values = Vec::new();
        for (index, number) in numbers.iter().copied().enumerate() {
            match T::from_number(number) {
                Some(value) if values.contains(&value) => {}
                Some(value) => values.push(value),
                None => self.item_violation(field, index, || match number {
                    0 => "must not be unspecified".to_owned(),
                    _ => unknown::<T>(number),
                }),
            }
        }
        values
    }
}

/// Returns the violation of a number that is no value of an enum.
fn unknown<T: ProtoEnum>(number: i32) -> String {
    let names: Vec<_> = T::VALUES.iter().map(|value| value.proto_name()).collect();
    let (name, names) = (T::NAME, names.join(", "));
    format!("must be a {name} ({names}), got {number}")
}
