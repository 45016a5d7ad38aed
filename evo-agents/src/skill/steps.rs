//! The steps of a call, told to whoever follows it.

use std::sync::Arc;

use futures_util::future::BoxFuture;

/// Takes a step: its number from 1, how many there are, and what is done in it.
pub(crate) type Teller =
    Arc<dyn Fn(u32, Option<u32>, String) -> BoxFuture<'static, ()> + Send + Sync>;

tokio::task_local! {
    static TELLER: Teller;
}

/// Does a call whose steps are told.
pub(crate) async fn followed<T>(teller: Teller, call: impl Future<Output = T>) -> T {
    TELLER.scope(teller, call).await
}

/// Says that a step of the present call begins, `step` from 1. Where nobody follows the call, nothing
/// is said.
pub async fn tell(step: u32, of: Option<u32>, message: &str) {
    let told = TELLER.try_with(|teller| teller(step, of, message.to_owned()));
    if let Ok(told) = told {
        told.await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test]
    async fn a_step_is_told_to_who_follows_this_call_and_to_nobody_else() {
        type Told = Mutex<Vec<(u32, Option<u32>, String)>>;
        let told: Arc<Told> = Arc::default();
        let teller: Teller = {
            let told = Arc::clone(&told);
            Arc::new(move |step, of, message| {
                told.lock().unwrap().push((step, of, message));
                Box::pin(async {})
            })
        };
        tell(9, None, "before").await;
        followed(teller, tell(1, Some(2), "pets-get")).await;
        tell(9, None, "after").await;
        assert_eq!(*told.lock().unwrap(), [(1, Some(2), "pets-get".to_owned())]);
    }
}
